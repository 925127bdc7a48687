"""The random start of an attack."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from bat_fast import _native, ops
from bat_fast.measure.peers import written_start
from operators import IMAGES, SMALL_IMAGES, Call, Case, Inputs, Work, layouts, size

EPS = 8 / 255


def random_start_best(clean: Tensor, work: Tensor, eps: float) -> Tensor:
    return work.uniform_(-eps, eps).add_(clean).clamp_(0, 1)


def cases(inputs: Inputs) -> Iterator[Case]:
    for shape in IMAGES[inputs.device]:
        reach = {"floor": 0.85} if inputs.gpu and shape == IMAGES["cuda"][-1] else {}
        yield Case("random_start", size(shape), partial(_start, inputs, shape), reach)
    if inputs.gpu:
        shape, last = IMAGES["cuda"][-1], torch.channels_last
        words = f"{size(shape)} channels_last"
        yield Case("random_start", words, partial(_start, inputs, shape, last), {"floor": 0.85})


def _start(
    inputs: Inputs, shape: tuple[int, ...], layout: torch.memory_format = torch.contiguous_format
) -> Work:
    clean = inputs.rand(*shape).contiguous(memory_format=layout)
    index = torch.arange(len(clean), device=inputs.device)
    reference = _native.reference_of("random_start")
    return Work(
        native=lambda: ops.random_start(clean, eps=EPS, seed=1, index=index),
        eager=lambda: written_start(clean, EPS),
        best=partial(random_start_best, clean, torch.empty_like(clean), EPS),
        exact=lambda: reference(clean, index, EPS, "linf", 1, 0, 0.0, 1.0),
        bytes_moved=2 * clean.nbytes,
        unchecked=("eager", "best", "compiled"),
    )


def small(inputs: Inputs) -> Iterator[Call]:
    for shape in SMALL_IMAGES:
        for layout, (clean,) in layouts(inputs.rand(*shape)):
            for norm in ("linf", "l2", "gaussian"):
                run = partial(ops.random_start, clean, eps=0.1, norm=norm, seed=3)
                yield Call(f"random_start {norm} {size(shape)}{layout}", run, same_bits=norm == "linf")
