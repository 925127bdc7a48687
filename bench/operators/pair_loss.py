"""Losses over pairs of rows, clean and adversarial: TRADES and MART."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from bat_fast import ops
from operators import ROWS, SMALL_ROWS, Call, Case, Inputs, Work, differentiated, leaves, size, with_grad

BETA = 5.0
PASSES = 6  # forward reads both matrices, backward reads both and writes both gradients


def kl_loss(clean: Tensor, adv: Tensor) -> Tensor:
    return F.kl_div(F.log_softmax(adv, 1), F.softmax(clean, 1), reduction="batchmean")


def kl_loss_best(clean: Tensor, adv: Tensor, work: Tensor, more: Tensor) -> tuple[Tensor, ...]:
    torch.log_softmax(clean, 1, out=work)
    torch.log_softmax(adv, 1, out=more)
    p = work.exp()
    difference = work.sub_(more)
    kl = (p * difference).sum(1, keepdim=True)
    grad_adv = more.exp_().sub_(p).div_(len(clean))
    return kl.mean(), difference.sub_(kl).mul_(p.div_(len(clean))), grad_adv


def mart_loss(clean: Tensor, adv: Tensor, y: Tensor, beta: float) -> Tensor:
    q, p = F.softmax(adv, 1), F.softmax(clean, 1)
    last = torch.argsort(q, dim=1)[:, -2:]
    other = torch.where(last[:, -1] == y, last[:, -2], last[:, -1])
    bce = F.cross_entropy(adv, y) + F.nll_loss(torch.log(1.0001 - q + 1e-12), other)
    kl = F.kl_div(torch.log(q + 1e-12), p, reduction="none").sum(1)
    return bce + beta * (kl * (1.0000001 - p.gather(1, y[:, None]).squeeze(1))).mean()


def cases(inputs: Inputs) -> Iterator[Case]:
    for shape in ROWS:
        reach = {"floor": 0.6} if inputs.gpu and shape == ROWS[-1] else {}
        kl, mart = partial(_kl, inputs, *shape), partial(_mart, inputs, *shape)
        yield Case("kl_loss", size(shape), kl, reach, compiles=shape == ROWS[1], kernel="pair_loss")
        yield Case("mart_loss", size(shape), mart, reach, kernel="pair_loss")


def _kl(inputs: Inputs, n: int, classes: int) -> Work:
    clean, adv, _ = inputs.rows(n, classes)
    best = partial(kl_loss_best, clean, adv, torch.empty_like(adv), torch.empty_like(adv))
    return differentiated(ops.kl_loss, kl_loss, best, clean, adv, bytes_moved=PASSES * adv.nbytes)


def _mart(inputs: Inputs, n: int, classes: int) -> Work:
    clean, adv, y = inputs.rows(n, classes)
    native, plain = partial(ops.mart_loss, target=y, beta=BETA), partial(mart_loss, y=y, beta=BETA)
    return differentiated(native, plain, None, clean, adv, bytes_moved=PASSES * adv.nbytes)


def small(inputs: Inputs) -> Iterator[Call]:
    for shape in SMALL_ROWS:
        clean, adv, y = inputs.rows(*shape)
        mart = partial(ops.mart_loss, target=y)
        yield Call(f"kl_loss {size(shape)}", partial(with_grad, ops.kl_loss, *leaves(clean, adv)))
        alone = partial(with_grad, partial(ops.kl_loss, clean), *leaves(adv))
        yield Call(f"kl_loss, one gradient, {size(shape)}", alone)
        yield Call(f"mart_loss {size(shape)}", partial(with_grad, mart, *leaves(clean, adv)))
