"""Queries of the Square attack on a small network, beside their loop in torch on the same network."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from bat_fast._native import reference_of
from bat_fast.ops.squares import network_squares_, pyramids
from operators import Case, Inputs, Work, size
from operators.network import BATCH, EPS, PIXELS, Network, exact
from operators.network import small as small  # none: there is no kernel on a GPU to look at


def cases(inputs: Inputs) -> Iterator[Case]:
    if not inputs.gpu:
        for norm in ("linf", "l2"):
            # Which of two nearly equal margins is smaller may depend on rounding.
            shape = f"{size((BATCH, PIXELS))} {norm}"
            yield Case("network_squares_", shape, partial(_work, inputs, norm), tolerance=2e-2)


def _work(inputs: Inputs, norm: str) -> Work:
    network, x = Network(), inputs.rand(BATCH, PIXELS, 1, 1)
    with torch.no_grad():
        y = network.model(x).argmax(1)
    numbers = inputs.rand(BATCH, 100, (2 if norm == "linf" else 5) + PIXELS)
    adv, bumps = x.clone(), None if norm == "linf" else pyramids(1, x)
    rest = (*network.given.values(), 1, EPS, 0.0, 1.0)
    reference = reference_of("network_squares_")

    def eager() -> Tensor:
        reference(adv.copy_(x), x, y, numbers, bumps, *rest)
        return adv

    def native() -> Tensor:
        return network_squares_(adv.copy_(x), x, y, numbers, side=1, norm=norm, eps=EPS, **network.given)

    return Work(
        native=native,
        eager=eager,
        best=None,
        exact=lambda: exact(reference, x, x, y, numbers, bumps, *rest, kept=(3,)),
    )
