"""Losses over rows of logits with labels: BAT, and temporal ensembling."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from bat_fast import ops
from operators import ROWS, SMALL_ROWS, Call, Case, Inputs, Work, differentiated, leaves, size, with_grad

ALPHA = 1.0


def bat_loss(z: Tensor, y: Tensor, alpha: float) -> Tensor:
    p = F.softmax(z.detach(), dim=1)
    q = p.scatter(1, y[:, None], 0).max(dim=1).values
    w = torch.where(p.argmax(1) != y, torch.exp(-alpha * q), torch.ones_like(q))
    return (w * F.cross_entropy(z, y, reduction="none")).sum() / w.sum()


def bat_loss_best(z: Tensor, y: Tensor, work: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    column = y[:, None]
    torch.log_softmax(z, 1, out=work)
    log_p = work.gather(1, column)
    other = work.scatter_(1, column, -torch.inf).amax(1, keepdim=True)
    w = torch.where(other > log_p, (-alpha * other.exp()).exp_(), 1.0)
    total = w.sum()
    loss = -(w * log_p).sum() / total
    work.exp_().scatter_(1, column, log_p.expm1()).mul_(w / total)
    return loss, work


def soft_target_loss(z: Tensor, soft: Tensor) -> Tensor:
    return F.mse_loss(F.softmax(z, 1), soft)


def soft_target_loss_best(z: Tensor, soft: Tensor, work: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
    p = torch.softmax(z, 1, out=work)
    d = torch.sub(p, soft, out=more)
    loss = d.square().mean()
    return loss, d.sub_(torch.linalg.vecdot(p, d)[:, None]).mul_(p).mul_(2 / z.numel())


def cases(inputs: Inputs) -> Iterator[Case]:
    hopes = {ROWS[1]: {"best": 6.0, "compiled": 2.0}, ROWS[2]: {"best": 7.0, "compiled": 4.0}}
    for shape in ROWS:
        reach = {"floor": 0.6} if inputs.gpu and shape == ROWS[-1] else {}
        goal = reach if inputs.gpu else hopes.get(shape, {})
        yield Case("bat_loss", size(shape), partial(_bat, inputs, *shape), goal, compiles=True)
        soft = partial(_soft, inputs, *shape)
        yield Case("soft_target_loss", size(shape), soft, reach, compiles=shape == ROWS[1])


def _bat(inputs: Inputs, n: int, classes: int) -> Work:
    z, _, y = inputs.rows(n, classes)
    return differentiated(
        partial(ops.bat_loss, target=y, alpha=ALPHA),
        partial(bat_loss, y=y, alpha=ALPHA),
        partial(bat_loss_best, z, y, torch.empty_like(z), ALPHA),
        z,
        bytes_moved=3 * z.nbytes,  # forward one read, backward a read and a write
    )


def _soft(inputs: Inputs, n: int, classes: int) -> Work:
    z, other, _ = inputs.rows(n, classes)
    soft = other.softmax(1)
    return differentiated(
        partial(ops.soft_target_loss, soft=soft),
        lambda z: soft_target_loss(z, soft.to(z.dtype)),
        partial(soft_target_loss_best, z, soft, torch.empty_like(z), torch.empty_like(z)),
        z,
        bytes_moved=3 * z.nbytes,
    )


def small(inputs: Inputs) -> Iterator[Call]:
    for shape in SMALL_ROWS:
        z, other, y = inputs.rows(*shape)
        bat, soft = (
            partial(ops.bat_loss, target=y, alpha=ALPHA),
            partial(ops.soft_target_loss, soft=other.softmax(1)),
        )
        yield Call(f"bat_loss {size(shape)}", partial(with_grad, bat, *leaves(z)))
        yield Call(f"soft_target_loss {size(shape)}", partial(with_grad, soft, *leaves(z)))
