"""The walk of the fast adaptive boundary attack, beside its loop in torch on the same network."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from bat_fast._native import reference_of
from bat_fast.ops.walk import network_walk_
from operators import Case, Inputs, Work, size
from operators.network import BATCH, EPS, PIXELS, Network, exact
from operators.network import small as small  # none: there is no kernel on a GPU to look at


def cases(inputs: Inputs) -> Iterator[Case]:
    if not inputs.gpu:
        # Whether a point just behind the boundary is misclassified may depend on rounding.
        yield Case("network_walk_", size((BATCH, PIXELS)), partial(_work, inputs), tolerance=2e-2)


def _work(inputs: Inputs) -> Work:
    network, x = Network(), inputs.rand(BATCH, PIXELS, 1, 1)
    with torch.no_grad():
        y = network.model(x).argmax(1)
    adv, steps = x.clone(), 20
    given = tuple(network.given.values())
    rest = ("linf", steps, EPS, 0.0, 1.0)
    reference, targets = reference_of("network_walk_"), (y + 1) % 10

    def eager() -> Tensor:
        reference(adv.copy_(x), x, y, targets, *given, *rest)
        return adv

    return Work(
        native=lambda: network_walk_(
            adv.copy_(x), x, y, targets=targets, steps=steps, eps=EPS, **network.given
        ),
        eager=eager,
        best=None,
        exact=lambda: exact(reference, x, x, y, targets, *given, *rest),
    )
