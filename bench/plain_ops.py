"""The operators in public PyTorch only: as repositories write them, and `*_best` as an expert would.

The best versions reuse buffers (``work``), write in place, and spell gradients out instead of recording them;
they are also what `torch.compile` is given. A step may use what the attack computed once, such as the ball.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def linf_step(adv: Tensor, grad: Tensor, clean: Tensor, step: float, eps: float) -> Tensor:
    moved = adv + step * grad.sign()
    return (clean + (moved - clean).clamp(-eps, eps)).clamp(0, 1)


def linf_step_best(adv: Tensor, grad: Tensor, low: Tensor, high: Tensor, step: float) -> Tensor:
    """``low`` and ``high`` bound the ball and the pixels, once for the whole attack."""
    return adv.add_(grad.sign_(), alpha=step).clamp_(low, high)


def _length(t: Tensor) -> Tensor:
    return torch.linalg.vector_norm(t.flatten(1), dim=1).view(-1, *[1] * (t.dim() - 1))


def l2_step(adv: Tensor, grad: Tensor, clean: Tensor, step: float, eps: float) -> Tensor:
    moved = adv + step * grad / (_length(grad) + 1e-10)
    delta = moved - clean
    return (clean + delta * (eps / _length(delta)).clamp(max=1.0)).clamp(0, 1)


def l2_step_best(adv: Tensor, grad: Tensor, clean: Tensor, work: Tensor, step: float, eps: float) -> Tensor:
    adv.addcmul_(grad, step / (_length(grad) + 1e-10))
    torch.sub(adv, clean, out=work)
    work.mul_((eps / _length(work)).clamp_(max=1.0))
    return torch.add(clean, work, out=adv).clamp_(0, 1)


def random_start(clean: Tensor, eps: float) -> Tensor:
    return (clean + torch.empty_like(clean).uniform_(-eps, eps)).clamp(0, 1)


def random_start_best(clean: Tensor, work: Tensor, eps: float) -> Tensor:
    return work.uniform_(-eps, eps).add_(clean).clamp_(0, 1)


def ce_grad(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    z = z.detach().requires_grad_()
    per_sample = F.cross_entropy(z, y, reduction="none")
    return torch.autograd.grad(per_sample.sum(), z)[0], per_sample.detach()


def ce_grad_best(z: Tensor, y: Tensor, work: Tensor) -> tuple[Tensor, Tensor]:
    column = y[:, None]
    torch.log_softmax(z, 1, out=work)
    log_p = work.gather(1, column)
    work.exp_().scatter_(1, column, log_p.expm1())
    return work, log_p.neg_().squeeze(1)


def bat_loss(z: Tensor, y: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    z = z.detach().requires_grad_()
    p = F.softmax(z.detach(), dim=1)
    q = p.scatter(1, y[:, None], 0).max(dim=1).values
    w = torch.where(p.argmax(1) != y, torch.exp(-alpha * q), torch.ones_like(q))
    loss = (w * F.cross_entropy(z, y, reduction="none")).sum() / w.sum()
    return loss.detach(), torch.autograd.grad(loss, z)[0]


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


def kl_loss(clean: Tensor, adv: Tensor) -> tuple[Tensor, ...]:
    clean, adv = (t.detach().requires_grad_() for t in (clean, adv))
    loss = F.kl_div(F.log_softmax(adv, 1), F.softmax(clean, 1), reduction="batchmean")
    return loss.detach(), *torch.autograd.grad(loss, (clean, adv))


def kl_loss_best(clean: Tensor, adv: Tensor, work: Tensor, more: Tensor) -> tuple[Tensor, ...]:
    torch.log_softmax(clean, 1, out=work)
    torch.log_softmax(adv, 1, out=more)
    p = work.exp()
    difference = work.sub_(more)
    kl = (p * difference).sum(1, keepdim=True)
    grad_adv = more.exp_().sub_(p).div_(len(clean))
    return kl.mean(), difference.sub_(kl).mul_(p.div_(len(clean))), grad_adv


def mart_loss(clean: Tensor, adv: Tensor, y: Tensor, beta: float) -> tuple[Tensor, ...]:
    clean, adv = (t.detach().requires_grad_() for t in (clean, adv))
    q, p = F.softmax(adv, 1), F.softmax(clean, 1)
    last = torch.argsort(q, dim=1)[:, -2:]
    other = torch.where(last[:, -1] == y, last[:, -2], last[:, -1])
    bce = F.cross_entropy(adv, y) + F.nll_loss(torch.log(1.0001 - q + 1e-12), other)
    kl = F.kl_div(torch.log(q + 1e-12), p, reduction="none").sum(1)
    loss = bce + beta * (kl * (1.0000001 - p.gather(1, y[:, None]).squeeze(1))).mean()
    return loss.detach(), *torch.autograd.grad(loss, (clean, adv))


def soft_target_loss(z: Tensor, soft: Tensor) -> tuple[Tensor, Tensor]:
    z = z.detach().requires_grad_()
    loss = F.mse_loss(F.softmax(z, 1), soft)
    return loss.detach(), torch.autograd.grad(loss, z)[0]


def soft_target_loss_best(z: Tensor, soft: Tensor, work: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
    p = torch.softmax(z, 1, out=work)
    d = torch.sub(p, soft, out=more)
    loss = d.square().mean()
    return loss, d.sub_(torch.linalg.vecdot(p, d)[:, None]).mul_(p).mul_(2 / z.numel())


def discrimination_loss(features: Tensor, y: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    features = features.detach().requires_grad_()
    h = F.normalize(features, dim=1)
    similarity = h @ h.T / tau
    self_pair = torch.eye(len(h), dtype=torch.bool, device=h.device)
    positive = (y[:, None] == y[None, :]) & ~self_pair
    log_p = similarity - similarity.masked_fill(self_pair, -torch.inf).logsumexp(1, keepdim=True)
    per_anchor = -(log_p * positive).sum(1) / positive.sum(1).clamp_min(1)
    loss = per_anchor[positive.any(1)].mean()
    return loss.detach(), torch.autograd.grad(loss, features)[0]


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


def smooth_relu(x: Tensor, beta_raw: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    x, beta_raw = x.detach().requires_grad_(), beta_raw.detach().requires_grad_()
    b, positive = beta_raw.square(), x.clamp(min=0)
    out = positive - torch.log(b * positive + 1) / b
    return out.detach(), *torch.autograd.grad(out, (x, beta_raw), grad)


def smooth_relu_best(x: Tensor, beta_raw: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    b, positive = beta_raw.square(), x.clamp(min=0)
    u = positive * b
    log = u.log1p().div_(b)
    slope = u / (u + 1)
    grad_beta = log.sub(positive / (u + 1)).mul_(grad).sum() * 2 / beta_raw
    return positive.sub_(log), slope.mul_(grad), grad_beta


def affine(x: Tensor, scale: Tensor, shift: Tensor, grad: Tensor, other: Tensor) -> tuple[Tensor, ...]:
    x = x.detach().requires_grad_()
    zero, one = torch.zeros_like(scale), torch.ones_like(scale)
    out = F.batch_norm(x, zero, one, scale, shift, eps=0.0).relu()
    return out.detach(), torch.autograd.grad(out, x, grad)[0] + other


def affine_best(
    x: Tensor, scale: Tensor, shift: Tensor, grad: Tensor, other: Tensor, constants: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    out = F.batch_norm(x, *constants, scale, shift, eps=0.0).relu_()
    torch.ops.aten.threshold_backward.grad_input(grad, out, 0, grad_input=grad)
    return out, grad.mul_(scale.to(x.dtype).view(-1, 1, 1)).add_(other)


def softplus(x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    out = torch.log(1 + torch.exp(10 * x)) / 10
    return out.detach(), torch.autograd.grad(out, x, grad)[0]


def softplus_best(x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    return F.softplus(x, 10.0, 1e9), torch.ops.aten.softplus_backward(grad, x, 10.0, 1e9)


def gather_crop(images: Tensor, index: Tensor, corners: Tensor, mirrored: Tensor, size: int) -> Tensor:
    """Crops of padded images [M, C, H, W] by one batched gather."""
    lines = torch.arange(size, device=images.device)
    rows, columns = corners[:, :1] + lines, corners[:, 1:] + lines
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    channels = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    crop = images[index[:, None, None, None], channels, rows[:, None, :, None], columns[:, None, None, :]]
    return crop.float() / 255


def slice_crop(images: Tensor, places: list[tuple[int, int, int, bool]], work: Tensor, out: Tensor) -> Tensor:
    """The same by one slice for each image, into reused buffers."""
    size = out.shape[-1]
    for batch_row, (image, row, column, flip) in zip(work, places, strict=True):
        crop = images[image, :, row : row + size, column : column + size]
        batch_row.copy_(crop.flip(2) if flip else crop)
    return torch.div(work, 255, out=out)
