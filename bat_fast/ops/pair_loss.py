"""Losses of the clean and the adversarial logits of a sample, with both gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bat_fast._checks import check_labels, check_like, check_number, floating
from bat_fast._native import accumulator, differentiable, new_rows, operator, valid_labels

__all__ = ["kl_loss", "mart_loss"]

_NUMBERS = 12  # of each row, that the gradients need beside the logits


def _fake_pair_loss(clean: Tensor, *_: object) -> tuple[Tensor, ...]:
    rows = new_rows(clean)
    return rows.new_empty(()), rows, rows.new_empty((rows.shape[0], _NUMBERS))


@operator(
    "pair_loss(Tensor clean, Tensor adv, Tensor? target, float beta)"
    " -> (Tensor loss, Tensor per_sample, Tensor rows)",
    fake=_fake_pair_loss,
)
def _pair_loss_reference(
    clean: Tensor, adv: Tensor, target: Tensor | None, beta: float
) -> tuple[Tensor, ...]:
    """KL of TRADES (no target) or MART (target and beta), and the numbers of each row, [N, 12]."""
    z, z_adv = (t.to(accumulator(t)) for t in (clean, adv))
    norms = [*_norm(z), *_norm(z_adv)]
    log_p, log_q, p, q = _probabilities(z, z_adv, *norms)
    if target is None:
        kl = torch.where(p == 0, 0.0, p * (log_p - log_q)).sum(1, keepdim=True)
        none = torch.zeros_like(kl)
        rows = [*norms, kl, p.sum(1, keepdim=True), none, none, none, none, none - 1, none + beta]
        return kl.mean(), kl.squeeze(1), torch.cat(rows, 1)
    valid, label = (t[:, None] for t in valid_labels(target, clean.shape[1]))
    at_label = _at(label, z)
    largest, other = z_adv.masked_fill(at_label, -torch.inf).max(1, keepdim=True)  # of equal ones the first
    other = torch.where(largest > -torch.inf, other, -1)
    at_other = _at(other, z)
    kl = torch.where(p == 0, 0.0, p * (log_p - (q + 1e-12).log())).sum(1, keepdim=True)
    parts = (p * q / (q + 1e-12), p * ~at_label, q * ~at_other, p * at_label, q * at_other)
    pulled, clean_rest, adv_rest, p_label, q_other = (part.sum(1, keepdim=True) for part in parts)
    bce = -log_q.gather(1, label) - (adv_rest + (1e-4 + 1e-12)).log()  # 1 - m is adv_rest
    per_sample = torch.where(valid, bce + beta * kl * (clean_rest + 1e-7), torch.nan).squeeze(1)
    rows = [*norms, kl, pulled, clean_rest, adv_rest, p_label, q_other, other, torch.full_like(kl, beta)]
    return per_sample.mean(), per_sample, torch.where(valid, torch.cat(rows, 1), torch.nan)


def _norm(z: Tensor) -> tuple[Tensor, Tensor]:
    """Largest logit and log-sum above it, [N, 1] each."""
    top = z.amax(1, keepdim=True)
    return top, (z - top).exp().sum(1, keepdim=True).log()


def _probabilities(
    z: Tensor, z_adv: Tensor, top: Tensor, log_sum: Tensor, top_adv: Tensor, log_sum_adv: Tensor
) -> tuple[Tensor, ...]:
    """The logarithms of both rows' probabilities, and they themselves."""
    log_p, log_q = (z - top) - log_sum, (z_adv - top_adv) - log_sum_adv
    return log_p, log_q, log_p.exp(), log_q.exp()


def _at(column: Tensor, rows: Tensor) -> Tensor:
    """Where ``rows`` [N, C] are in ``column`` [N, 1]."""
    return torch.arange(rows.shape[1], device=rows.device) == column


def _fake_pair_backward(
    grad_loss: Tensor, clean: Tensor, adv: Tensor, target: Tensor | None, rows: Tensor, *wanted: bool
) -> tuple[Tensor, ...]:
    n, classes = clean.shape
    return tuple(clean.new_empty((n if want else 0, classes)) for want in wanted)


@operator(
    "pair_loss_backward(Tensor grad_loss, Tensor clean, Tensor adv, Tensor? target, Tensor rows,"
    " bool wants_clean, bool wants_adv) -> (Tensor grad_clean, Tensor grad_adv)",
    fake=_fake_pair_backward,
)
def _pair_loss_backward_reference(
    grad_loss: Tensor, clean: Tensor, adv: Tensor, target: Tensor | None, rows: Tensor, *wanted: bool
) -> tuple[Tensor, ...]:
    """Both gradients, from what `pair_loss` says of the rows; one that is not wanted is [0, C]."""
    *norms, kl, pulled, clean_rest, adv_rest, p_label, q_other, other, beta = rows.split(1, 1)
    log_p, log_q, p, q = _probabilities(clean.to(rows.dtype), adv.to(rows.dtype), *norms)
    if target is None:
        grad_clean = torch.where(p > 0, p * ((log_p - log_q) - kl), p * 0)
        grad_adv = q * pulled - p
    else:
        at_label, at_other = _at(target[:, None], p), _at(other, p)
        weight, margin = beta * (clean_rest + 1e-7), adv_rest + (1e-4 + 1e-12)
        grad_clean = torch.where(p > 0, weight * p * ((log_p - (q + 1e-12).log()) - kl), p * 0)
        grad_clean = grad_clean - beta * kl * p_label * torch.where(at_label, clean_rest, -p)
        grad_adv = weight * (q * pulled - p * q / (q + 1e-12)) + (q - at_label.to(q.dtype))
        grad_adv = grad_adv + q_other / margin * torch.where(at_other, adv_rest, -q)
    scale = grad_loss / max(len(clean), 1)
    return tuple(
        (scale * grad).to(clean.dtype).contiguous() if want else clean.new_empty((0, clean.shape[1]))
        for grad, want in zip((grad_clean, grad_adv), wanted, strict=True)
    )


def _pair_loss_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*inputs[:3], output[2])


def _pair_loss_backward(ctx: Any, grad_loss: Tensor, *_: object) -> tuple[Tensor | None, ...]:
    clean, adv, target, rows = ctx.saved_tensors
    wanted = ctx.needs_input_grad[:2]
    grad_loss = grad_loss.to(rows.dtype)  # autograd.grad takes one of any
    grads = torch.ops.bat_fast.pair_loss_backward.default(grad_loss, clean, adv, target, rows, *wanted)
    return grads[0] if wanted[0] else None, grads[1] if wanted[1] else None, None, None


_call_pair_loss = differentiable("pair_loss", _pair_loss_backward, _pair_loss_setup)


def kl_loss(clean: Tensor, adv: Tensor) -> tuple[Tensor, Tensor]:
    """``mean_i KL(softmax(clean_i) || softmax(adv_i))``, the robustness term of TRADES (Zhang et al. 2019).

    Args:
        clean: [N, C] logits of the clean images; float32, float64 or 16 bits (CUDA: no float64).
        adv: [N, C] logits of the adversarial images.

    Returns:
        loss, a scalar differentiable in both, and per_sample [N], detached. An empty batch gives NaN.

    Raises:
        ValueError: a shape or device does not fit. TypeError: a dtype does not.
    """
    clean, adv = _pair(clean, adv)
    loss, per_sample, _ = _call_pair_loss(clean, adv, None, 0.0)
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
    loss, per_sample, _ = _call_pair_loss(clean, adv, target, beta)
    return loss, per_sample


def _pair(clean: Tensor, adv: Tensor) -> tuple[Tensor, Tensor]:
    clean, adv = floating("clean", clean), floating("adv", adv)
    check_like("adv", adv, "clean", clean)
    if clean.dim() != 2:
        raise ValueError(f"clean must be [N, C], got {list(clean.shape)}")
    if adv.dtype != clean.dtype:
        raise TypeError(f"adv must have the dtype of clean, {clean.dtype}, got {adv.dtype}")
    return clean, adv
