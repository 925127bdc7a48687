"""AutoPGD on a small network, beside its loop in torch on the same network."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from bat_fast._native import reference_of
from bat_fast.ops.ascent import checkpoints, network_ascent_
from operators import Case, Inputs, Work, size
from operators.network import BATCH, EPS, PIXELS, Network, exact
from operators.network import small as small  # none: there is no kernel on a GPU to look at


def cases(inputs: Inputs) -> Iterator[Case]:
    if not inputs.gpu:
        # A pixel whose gradient is next to 0 may take a step to the other side, and an image break later.
        yield Case("network_ascent_", size((BATCH, PIXELS)), partial(_work, inputs), tolerance=2e-2)


def _work(inputs: Inputs) -> Work:
    network, x = Network(), inputs.rand(BATCH, PIXELS, 1, 1)
    with torch.no_grad():
        y = network.model(x).argmax(1)
    adv, steps = x.clone(), 20
    how = {"loss": "ce", "norm": "linf", "steps": steps, "eps": EPS}
    given = tuple(network.given.values())
    rest = ("ce", "linf", torch.tensor(checkpoints(steps)), steps, EPS, 0.0, 1.0)
    reference = reference_of("network_ascent_")

    def eager() -> Tensor:
        reference(adv.copy_(x), x, y, None, *given, *rest)
        return adv

    return Work(
        native=lambda: network_ascent_(adv.copy_(x), x, y, **how, **network.given),
        eager=eager,
        best=None,
        exact=lambda: exact(reference, x, x, y, None, *given, *rest),
    )
