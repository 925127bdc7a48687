"""Queries of the Square attack on a small network, beside their loop in torch on the same network."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from bat_fast._native import reference_of
from bat_fast.ops.squares import network_squares_
from operators import Case, Inputs, Work, size
from operators.network import BATCH, EPS, PIXELS, Network, exact
from operators.network import small as small  # none: there is no kernel on a GPU to look at


def cases(inputs: Inputs) -> Iterator[Case]:
    if not inputs.gpu:
        # Which of two nearly equal margins is smaller may depend on rounding.
        yield Case("network_squares_", size((BATCH, PIXELS)), partial(_work, inputs), tolerance=2e-2)


def _work(inputs: Inputs) -> Work:
    network, x = Network(), inputs.rand(BATCH, PIXELS, 1, 1)
    with torch.no_grad():
        y = network.model(x).argmax(1)
    numbers = inputs.rand(BATCH, 100, 2 + PIXELS)
    adv, given = x.clone(), tuple(network.given.values())
    rest = (1, EPS, 0.0, 1.0)
    reference = reference_of("network_squares_")

    def eager() -> Tensor:
        reference(adv.copy_(x), x, y, numbers, *given, *rest)
        return adv

    return Work(
        native=lambda: network_squares_(adv.copy_(x), x, y, numbers, side=1, eps=EPS, **network.given),
        eager=eager,
        best=None,
        exact=lambda: exact(reference, x, x, y, numbers, *given, *rest, kept=(3,)),
    )
