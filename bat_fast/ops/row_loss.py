"""Losses of one row of logits per sample, with their analytic gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bat_fast._checks import check_labels, check_number, check_rows, floating
from bat_fast._native import accumulator, differentiable, new_rows, operator, transformed, valid_labels

__all__ = ["bat_loss", "soft_target_loss"]


def _fake_bat_loss(logits: Tensor, *_: object) -> tuple[Tensor, ...]:
    rows = new_rows(logits)
    return rows.new_empty(()), rows, rows.new_empty((rows.shape[0], 2)), rows.new_empty(())


@operator(
    "bat_loss(Tensor logits, Tensor target, float alpha, str normalize)"
    " -> (Tensor loss, Tensor weights, Tensor norm, Tensor total)",
    fake=_fake_bat_loss,
)
def _bat_loss_reference(logits: Tensor, target: Tensor, alpha: float, normalize: str) -> tuple[Tensor, ...]:
    valid, label = valid_labels(target, logits.shape[1])
    label = label[:, None]
    z = logits.to(accumulator(logits))
    top = z.amax(1)
    log_sum = (z - top[:, None]).exp().sum(1).log()
    per_sample = log_sum + (top - z.gather(1, label).squeeze(1))
    other = z.scatter(1, label, -torch.inf)
    q = ((other.amax(1) - top) - log_sum).exp()
    wrong = z.argmax(1) != label.squeeze(1)
    least = torch.finfo(z.dtype).tiny  # weights that vanish all together would leave 0/0
    weights = torch.where(wrong, (-alpha * q).exp().clamp_min(least), 1.0)
    nan = float("nan")
    weights, per_sample = torch.where(valid, weights, nan), torch.where(valid, per_sample, nan)
    total = weights.sum()
    if normalize == "batch":
        total = torch.full_like(total, len(weights))
    return (weights * per_sample).sum() / total, weights, torch.stack([top, log_sum], dim=1), total


def _fake_matrix(logits: Tensor) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


@operator(
    "bat_loss_backward(Tensor grad_loss, Tensor logits, Tensor target, Tensor weights, Tensor norm,"
    " Tensor total) -> Tensor grad",
    fake=lambda _, logits, *__: _fake_matrix(logits),
)
def _bat_loss_backward_reference(
    grad_loss: Tensor, logits: Tensor, target: Tensor, weights: Tensor, norm: Tensor, total: Tensor
) -> Tensor:
    """``grad_loss w_i / total (softmax(z_i) - onehot(y_i))``; ``norm`` [N, 2]: top and log of the sum."""
    label = target.clamp(0, logits.shape[1] - 1)
    grad = ((logits.to(norm.dtype) - norm[:, :1]) - norm[:, 1:]).exp() - F.one_hot(label, logits.shape[1])
    return (grad * (weights * (grad_loss / total))[:, None]).to(logits.dtype).contiguous()


def _bat_loss_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*inputs[:2], *output[1:])


def _bat_loss_backward(ctx: Any, grad_loss: Tensor, *_: object) -> tuple[Tensor | None, ...]:
    logits, target, weights, norm, total = ctx.saved_tensors
    grad_loss = grad_loss.to(total.dtype)  # autograd.grad takes one of any
    grad = torch.ops.bat_fast.bat_loss_backward(grad_loss, logits, target, weights, norm, total)
    return grad, None, None, None


_call_bat_loss = differentiable("bat_loss", _bat_loss_backward, _bat_loss_setup)


def bat_loss(
    logits: Tensor, target: Tensor, *, alpha: float, normalize: str = "weights"
) -> tuple[Tensor, Tensor]:
    """Reweighted cross-entropy of Benign Adversarial Training (Xu et al. 2021).

    With ``p = softmax(z)`` and ``q_i = max_{t != y_i} p_t``, a sample that is predicted wrongly weighs
    ``w_i = exp(-alpha q_i)``, any other 1; the loss is ``sum_i w_i CE_i / sum_i w_i``. No gradient
    flows through the weights. ``alpha = 0`` is the mean cross-entropy. A weight is at least the smallest
    normal number of its type: where all of them would vanish the loss is the mean, and not 0/0.

    Args:
        logits: [N, C] of the adversarial images; float32, float64 or 16 bits (CUDA: no float64).
        target: [N] int64 classes, 0 <= target < C.
        alpha: strength, >= 0.
        normalize: ``"weights"`` divides by the sum of the weights, ``"batch"`` by N.

    Returns:
        loss, a differentiable scalar, and weights [N], detached (float64 for float64, else float32).
        An empty batch gives NaN, as torch's mean does.

    Raises:
        ValueError: a shape, device, label or number does not fit. TypeError: a dtype does not.
    """
    logits = floating("logits", logits)
    check_labels("target", target, logits)
    check_number("alpha", alpha, 0.0)
    if normalize not in ("weights", "batch"):
        raise ValueError(f"normalize must be 'weights' or 'batch', got {normalize!r}")
    loss, weights, _, _ = _call_bat_loss(logits, target, alpha, normalize)
    return loss, weights


def _fake_soft_target_loss(logits: Tensor, *_: object) -> tuple[Tensor, ...]:
    rows = new_rows(logits)
    return rows.new_empty(()), rows, _fake_matrix(logits)


@operator(
    "soft_target_loss(Tensor logits, Tensor soft) -> (Tensor loss, Tensor per_sample, Tensor grad)",
    fake=_fake_soft_target_loss,
)
def _soft_target_loss_reference(logits: Tensor, soft: Tensor) -> tuple[Tensor, ...]:
    p = logits.to(accumulator(logits)).softmax(1)
    d = p - soft.to(p.dtype)
    per_sample = d.square().mean(1)
    grad = 2 / max(p.numel(), 1) * p * (d - (p * d).sum(1, keepdim=True))
    return per_sample.mean(), per_sample, grad.to(logits.dtype).contiguous()


def _soft_target_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(output[2], inputs[0])  # the logits mark the path of a second derivative


def _soft_target_backward(ctx: Any, grad_loss: Tensor, *_: object) -> tuple[Tensor | None, ...]:
    # A kernel of its own, which read logits and targets again, would be as many passes over memory on a GPU
    # (2 and then 3, where these are 3 and then 2), as many launches, and on a CPU every exponential twice.
    (grad, _), factor = ctx.saved_tensors, grad_loss
    if type(factor) is Tensor and factor.is_cpu and not transformed() and factor.item() == 1.0:
        return grad, None
    return (grad * factor).to(grad.dtype), None


_call_soft_target_loss = differentiable("soft_target_loss", _soft_target_backward, _soft_target_setup)


def soft_target_loss(logits: Tensor, soft: Tensor) -> tuple[Tensor, Tensor]:
    """``mean_{i,c} (softmax(z_i)_c - soft_ic)^2``, the term of temporal ensembling (Dong et al. 2021).

    Args:
        logits: [N, C] float32, float64 or 16 bits (CUDA: no float64).
        soft: [N, C] soft targets, without gradient.

    Returns:
        loss, a differentiable scalar, and per_sample [N], its part of each sample, detached.

    Raises:
        ValueError: a shape or device does not fit. TypeError: a dtype does not.
    """
    logits = floating("logits", logits)
    if logits.dim() != 2:
        raise ValueError(f"logits must be [N, C], got {list(logits.shape)}")
    check_rows("soft", soft, logits)
    loss, per_sample, _ = _call_soft_target_loss(logits, soft.detach().to(logits.dtype))
    return loss, per_sample
