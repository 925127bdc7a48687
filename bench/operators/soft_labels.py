"""The memory of soft labels of temporal ensembling."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from bat_fast import ops
from operators import ROWS, SMALL_ROWS, Call, Case, Inputs, Work, size

MOMENTUM, SAMPLES = 0.9, 20000


def ensemble_targets(memory: Tensor, index: Tensor, z: Tensor, momentum: float) -> Tensor:
    memory[index] = momentum * memory[index] + (1 - momentum) * F.softmax(z, 1)
    return memory[index] / memory[index].sum(1, keepdim=True)


def ensemble_targets_best(
    memory: Tensor, index: Tensor, z: Tensor, work: Tensor, more: Tensor, momentum: float
) -> Tensor:
    torch.index_select(memory, 0, index, out=work)
    work.lerp_(torch.softmax(z, 1, out=more), 1 - momentum)
    memory.index_copy_(0, index, work)
    return work.div_(work.sum(1, keepdim=True))


def cases(inputs: Inputs) -> Iterator[Case]:
    for shape in ROWS[1:]:
        reach = {"floor": 0.6} if shape == ROWS[-1] else {}
        yield Case(
            "ensemble_targets_", size(shape), partial(_update, inputs, *shape), reach if inputs.gpu else {}
        )


def _update(inputs: Inputs, n: int, classes: int) -> Work:
    memory, z = inputs.rand(SAMPLES, classes), 3 * inputs.randn(n, classes)
    index, start = torch.randperm(SAMPLES, device=inputs.device)[:n], memory.clone()
    return Work(
        native=lambda: ops.ensemble_targets_(memory, index, z, momentum=MOMENTUM),
        eager=lambda: ensemble_targets(memory, index, z, MOMENTUM),
        best=partial(
            ensemble_targets_best, memory, index, z, torch.empty_like(z), torch.empty_like(z), MOMENTUM
        ),
        exact=lambda: ensemble_targets(start.double(), index, z.double(), MOMENTUM),
        restore=lambda: memory.copy_(start),
        bytes_moved=4 * z.nbytes,
    )


def small(inputs: Inputs) -> Iterator[Call]:
    for n, classes in SMALL_ROWS:
        memory, index, (z, *_) = inputs.rand(9, classes), inputs.integers(9, n), inputs.rows(n, classes)
        yield Call(f"ensemble_targets_ {size((n, classes))}", partial(_updated, memory, index, z))


def _updated(memory: Tensor, index: Tensor, z: Tensor) -> Tensor:
    return ops.ensemble_targets_(memory.clone(), index, z, momentum=MOMENTUM)
