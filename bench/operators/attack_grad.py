"""The gradient of the attack loss at the logits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from bat_fast import ops
from operators import ROWS, SMALL_ROWS, Call, Case, Inputs, Work, leaves, size


def ce_grad(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    (z,) = leaves(z)
    per_sample = F.cross_entropy(z, y, reduction="none")
    return torch.autograd.grad(per_sample.sum(), z)[0], per_sample.detach()


def ce_grad_best(z: Tensor, y: Tensor, work: Tensor) -> tuple[Tensor, Tensor]:
    column = y[:, None]
    torch.log_softmax(z, 1, out=work)
    log_p = work.gather(1, column)
    work.exp_().scatter_(1, column, log_p.expm1())
    return work, log_p.neg_().squeeze(1)


def cases(inputs: Inputs) -> Iterator[Case]:
    for shape in ROWS:
        reach = {"floor": 0.6} if inputs.gpu and shape == ROWS[-1] else {}
        yield Case("attack_grad", size(shape), partial(_ce, inputs, *shape), reach, compiles=True)


def _ce(inputs: Inputs, n: int, classes: int) -> Work:
    z, _, y = inputs.rows(n, classes)
    return Work(
        native=lambda: ops.attack_grad(z, y),
        eager=lambda: ce_grad(z, y),
        best=partial(ce_grad_best, z, y, torch.empty_like(z)),
        exact=lambda: ce_grad(z.double(), y),
        bytes_moved=2 * z.nbytes,
    )


def small(inputs: Inputs) -> Iterator[Call]:
    for shape in SMALL_ROWS:
        z, other, y = inputs.rows(*shape)
        more = {"kl": {"reference": other}, "ce+te": {"soft": other.softmax(1), "soft_weight": 2.0}}
        for loss in ("ce", "margin", "dlr", "kl", "ce+te"):
            run = partial(ops.attack_grad, z, y, loss=loss, **more.get(loss, {}))
            yield Call(f"attack_grad {loss} {size(shape)}", run)
