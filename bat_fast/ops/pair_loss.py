"""Losses of the clean and the adversarial logits of a sample, with both gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bat_fast._checks import check_labels, check_like, check_number, floating
from bat_fast._native import accumulator, differentiable, new_rows, operator, scaled, valid_labels

__all__ = ["kl_loss", "mart_loss"]


def _fake_pair_loss(clean: Tensor, *_: object) -> tuple[Tensor, ...]:
    rows, grad = new_rows(clean), torch.empty_like(clean, memory_format=torch.contiguous_format)
    return rows.new_empty(()), rows, grad, torch.empty_like(grad)


@operator(
    "pair_loss(Tensor clean, Tensor adv, Tensor? target, float beta)"
    " -> (Tensor loss, Tensor per_sample, Tensor grad_clean, Tensor grad_adv)",
    fake=_fake_pair_loss,
)
def _pair_loss_reference(
    clean: Tensor, adv: Tensor, target: Tensor | None, beta: float
) -> tuple[Tensor, ...]:
    """KL of TRADES (no target) or MART (target and beta), with both gradients."""
    with torch.enable_grad():
        z, z_adv = (t.detach().to(accumulator(t)).requires_grad_() for t in (clean, adv))
        log_p, p = z.log_softmax(1), z.softmax(1)
        if target is None:
            per_sample = torch.where(p == 0, 0.0, p * (log_p - z_adv.log_softmax(1))).sum(1)
        else:
            valid, label = valid_labels(target, clean.shape[1])
            label = label[:, None]
            q = z_adv.softmax(1)
            rest = q.scatter(1, label, 0.0)
            other = rest.gather(1, rest.argmax(1, keepdim=True)).squeeze(1)  # of equal ones the first alone
            margin = 1.0001 - other + 1e-12
            bce = -z_adv.log_softmax(1).gather(1, label).squeeze(1) - margin.log()
            kl = torch.where(p == 0, 0.0, p * (log_p - (q + 1e-12).log())).sum(1)
            per_sample = bce + beta * kl * (1.0000001 - p.gather(1, label).squeeze(1))
            per_sample = torch.where(valid, per_sample, float("nan"))
        loss = per_sample.sum() / len(clean) if len(clean) else per_sample.sum() * float("nan")
        grads = torch.autograd.grad(loss, (z, z_adv))
    grads = tuple(g.to(clean.dtype).contiguous() for g in grads)
    return loss.detach(), per_sample.detach(), *grads


def _pair_loss_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, per_sample, grad_clean, grad_adv = output
    ctx.mark_non_differentiable(per_sample, grad_clean, grad_adv)
    ctx.save_for_backward(grad_clean, grad_adv, *inputs[:2])  # these mark the path of a second derivative


def _pair_loss_backward(ctx: Any, grad_loss: Tensor, *_: object) -> tuple[Tensor | None, ...]:
    grad_clean, grad_adv, *_ = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    return (
        scaled(grad_clean, grad_loss) if wanted[0] else None,
        scaled(grad_adv, grad_loss) if wanted[1] else None,
        None,
        None,
    )


_call_pair_loss = differentiable("pair_loss", _pair_loss_backward, _pair_loss_setup)


def kl_loss(clean: Tensor, adv: Tensor) -> tuple[Tensor, Tensor]:
    """``mean_i KL(softmax(clean_i) || softmax(adv_i))``, the robustness term of TRADES (Zhang et al. 2019).

    Args:
        clean: [N, C] logits of the clean images; float32, float64 or 16 bits (CUDA: no float64).
        adv: [N, C] logits of the adversarial images.

    Returns:
        loss, a scalar differentiable in both, and per_sample [N], detached. Value and gradients are
        computed in one visit of each row. An empty batch gives NaN.

    Raises:
        ValueError: a shape or device does not fit. TypeError: a dtype does not.
    """
    clean, adv = _pair(clean, adv)
    loss, per_sample, _, _ = _call_pair_loss(clean, adv, None, 0.0)
    return loss, per_sample


def mart_loss(clean: Tensor, adv: Tensor, target: Tensor, *, beta: float = 5.0) -> tuple[Tensor, Tensor]:
    """Loss of misclassification-aware adversarial training (Wang et al. 2020), mean over the batch.

    With ``p = softmax(clean)``, ``p' = softmax(adv)``:
    ``-log p'_y - log(1.0001 - max_{t != y} p'_t + 1e-12) + beta KL(p || p' + 1e-12) (1.0000001 - p_y)``.

    Args:
        clean, adv: [N, C] logits, as in `kl_loss`.
        target: [N] int64 classes, 0 <= target < C.
        beta: weight of the KL term, >= 0; 5 in the paper, 6 in its code.

    Returns:
        loss, a scalar differentiable in both logits, and per_sample [N], detached.

    Raises:
        ValueError: a shape, device, label or number does not fit. TypeError: a dtype does not.
    """
    clean, adv = _pair(clean, adv)
    check_labels("target", target, clean)
    check_number("beta", beta, 0.0)
    loss, per_sample, _, _ = _call_pair_loss(clean, adv, target, beta)
    return loss, per_sample


def _pair(clean: Tensor, adv: Tensor) -> tuple[Tensor, Tensor]:
    clean, adv = floating("clean", clean), floating("adv", adv)
    check_like("adv", adv, "clean", clean)
    if clean.dim() != 2:
        raise ValueError(f"clean must be [N, C], got {list(clean.shape)}")
    if adv.dtype != clean.dtype:
        raise TypeError(f"adv must have the dtype of clean, {clean.dtype}, got {adv.dtype}")
    return clean, adv
