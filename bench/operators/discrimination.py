"""The discrimination loss: supervised contrast of the features of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from bat_fast import ops
from operators import Call, Case, Inputs, Work, differentiated, leaves, size, with_grad

TAU = 0.1


def discrimination_loss(features: Tensor, y: Tensor, tau: float) -> Tensor:
    h = F.normalize(features, dim=1)
    similarity = h @ h.T / tau
    self_pair = torch.eye(len(h), dtype=torch.bool, device=h.device)
    positive = (y[:, None] == y[None, :]) & ~self_pair
    log_p = similarity - similarity.masked_fill(self_pair, -torch.inf).logsumexp(1, keepdim=True)
    per_anchor = -(log_p * positive).sum(1) / positive.sum(1).clamp_min(1)
    return per_anchor[positive.any(1)].mean()


def discrimination_loss_best(
    features: Tensor, y: Tensor, work: Tensor, more: Tensor, tau: float
) -> tuple[Tensor, Tensor]:
    norm = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    h = features / norm
    similarity = torch.mm(h, h.T, out=work).div_(tau)
    similarity.diagonal().fill_(-torch.inf)
    positive = (y[:, None] == y[None, :]).to(h.dtype).fill_diagonal_(0)
    count = positive.sum(1, keepdim=True)
    anchor = (count > 0) / (count > 0).sum()
    log_sum = similarity.logsumexp(1, keepdim=True)
    share = positive.mul_(anchor / count.clamp_min(1))
    mean = torch.where(share > 0, similarity, 0).mul_(share).sum()
    loss = (anchor * log_sum).sum() - mean
    pair = similarity.sub_(log_sum).exp_().mul_(anchor).sub_(share)
    grad = (torch.add(pair, pair.T, out=more) @ h).div_(tau)
    return loss, grad.sub_(h * torch.linalg.vecdot(h, grad)[:, None]).div_(norm)


def cases(inputs: Inputs) -> Iterator[Case]:
    hopes = {128: {"eager": 4.0, "compiled": 2.3}, 1024: {"eager": 2.3, "compiled": 1.7}}
    for n, reach in hopes.items():
        work = partial(_loss, inputs, n, 512)
        yield Case("discrimination_loss", size((n, 512)), work, {} if inputs.gpu else reach, compiles=True)


def _loss(inputs: Inputs, n: int, width: int) -> Work:
    features, y = inputs.randn(n, width), inputs.integers(100, n)
    work, more = inputs.rand(n, n), inputs.rand(n, n)
    return differentiated(
        partial(ops.discrimination_loss, target=y, temperature=TAU),
        partial(discrimination_loss, y=y, tau=TAU),
        partial(discrimination_loss_best, features, y, work, more, TAU),
        features,
        gemms=lambda: torch.mm(torch.mm(features, features.T, out=work), features),
    )


def small(inputs: Inputs) -> Iterator[Call]:
    for shape in ((5, 7), (70, 33)):
        features, y = inputs.rand(*shape) - 0.5, inputs.integers(4, shape[0])
        for denominator in ("all", "negatives"):
            loss = partial(ops.discrimination_loss, target=y, denominator=denominator)
            run = partial(with_grad, loss, *leaves(features))
            yield Call(f"discrimination_loss {denominator} {size(shape)}", run)
