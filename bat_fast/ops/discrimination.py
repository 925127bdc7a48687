"""The discrimination loss of Benign Adversarial Training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bat_fast._checks import check_number, floating
from bat_fast._native import accumulator, differentiable, operator

__all__ = ["discrimination_loss"]


def _fake(features: Tensor, *_: object) -> tuple[Tensor, ...]:
    n, width = features.shape
    return tuple(features.new_empty(size, dtype=accumulator(features)) for size in ((), (n,), (n, width)))


def _loss_and_similarity_grad(
    unit: Tensor, target: Tensor, weights: Tensor | None, temperature: float, denominator: str
) -> tuple[Tensor, Tensor]:
    """The loss, and its gradient with respect to the similarity matrix [N, N]."""
    n = unit.shape[0]
    similarity = unit @ unit.T / temperature
    self_pair = torch.eye(n, dtype=torch.bool, device=unit.device)
    same = target[:, None] == target[None, :]
    positive = same & ~self_pair
    count = positive.sum(1)
    anchor = (count > 0).to(unit.dtype)
    if weights is not None:
        anchor = anchor * weights.to(unit.dtype)
    anchor = anchor / anchor.sum().clamp_min(torch.finfo(unit.dtype).tiny)
    share = torch.where(positive, (anchor / count.clamp_min(1))[:, None], 0.0)  # weight of each pair
    if denominator == "all":
        log_sum = similarity.masked_fill(self_pair, -torch.inf).logsumexp(1)
        log_sum = torch.where(anchor > 0, log_sum, 0.0)
        probability = (similarity - log_sum[:, None]).exp().masked_fill(self_pair, 0.0)
        loss = (share * (log_sum[:, None] - similarity)).sum()
        return loss, anchor[:, None] * probability - share
    rest = similarity.masked_fill(same, -torch.inf).logsumexp(1)[:, None]  # the other classes
    loss = (share * torch.logaddexp(rest - similarity, similarity.new_zeros(()))).sum()
    pull = share * torch.sigmoid(rest - similarity)
    probability = torch.where(same, 0.0, (similarity - rest).exp().nan_to_num(0.0))
    return loss, pull.sum(1, keepdim=True) * probability - pull


@operator(
    "discrimination_loss(Tensor features, Tensor target, float temperature, Tensor? weights, str denominator)"
    " -> (Tensor loss, Tensor norm, Tensor unit_grad)",
    fake=_fake,
)
def _discrimination_reference(
    features: Tensor, target: Tensor, temperature: float, weights: Tensor | None, denominator: str
) -> tuple[Tensor, ...]:
    """The loss, the lengths of the features, and temperature times the gradient of the unit features."""
    h = features.to(accumulator(features))
    norm = h.norm(dim=1, keepdim=True).clamp_min(1e-12)
    unit = h / norm
    loss, pair_grad = _loss_and_similarity_grad(unit, target, weights, temperature, denominator)
    return loss, norm.squeeze(1), (pair_grad + pair_grad.T) @ unit


@operator(
    "discrimination_loss_backward(Tensor grad_loss, Tensor features, Tensor norm, Tensor unit_grad,"
    " float temperature) -> Tensor grad",
    fake=lambda _, features, *__: torch.empty_like(features, memory_format=torch.contiguous_format),
)
def _discrimination_backward_reference(
    grad_loss: Tensor, features: Tensor, norm: Tensor, unit_grad: Tensor, temperature: float
) -> Tensor:
    unit = features.to(norm.dtype) / norm[:, None]
    across = unit_grad - unit * (unit * unit_grad).sum(
        1, keepdim=True
    )  # the length of a unit does not change
    return (grad_loss / temperature * across / norm[:, None]).to(features.dtype).contiguous()


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, norm, unit_grad = output
    ctx.mark_non_differentiable(norm, unit_grad)
    ctx.save_for_backward(inputs[0], norm, unit_grad)
    ctx.temperature = inputs[2]


def _backward(ctx: Any, grad_loss: Tensor, *_: object) -> tuple[Tensor | None, ...]:
    features, norm, unit_grad = ctx.saved_tensors
    grad_loss = grad_loss.to(norm.dtype)  # autograd.grad takes one of any
    backward = torch.ops.bat_fast.discrimination_loss_backward.default
    return backward(grad_loss, features, norm, unit_grad, ctx.temperature), None, None, None, None


_call_discrimination_loss = differentiable("discrimination_loss", _backward, _setup)


def discrimination_loss(
    features: Tensor,
    target: Tensor,
    *,
    temperature: float = 0.1,
    weights: Tensor | None = None,
    denominator: str = "all",
) -> Tensor:
    """Discrimination loss of Benign Adversarial Training: draw classes together, push them apart.

    With features scaled to length 1, temperature tau and the positives P(i) = samples of the class of
    i other than i: ``mean_i mean_{j in P(i)} -log(exp(h_i h_j/tau) / sum_{k in A(i)} exp(h_i h_k/tau))``
    (Xu et al. 2021). Anchors without positives do not count; a batch without any gives 0.

    Args:
        features: [N, D] penultimate features; float32, float64 or 16 bits (CUDA: no float64).
        target: [N] int64 classes.
        temperature: tau, > 0.
        weights: [N] non-negative weights of the anchors, without gradient; None weighs all alike.
        denominator: A(i): ``"all"`` others, or ``"negatives"``: j and the samples of other classes.

    Returns:
        A differentiable scalar (float64 for float64, else float32). The gradient is computed with the value,
        but for its last pass over the features.

    Raises:
        ValueError: a shape, device or number does not fit. TypeError: a dtype does not.
    """
    features = floating("features", features)
    if features.dim() != 2:
        raise ValueError(f"features must be [N, D], got {list(features.shape)}")
    if target.dtype != torch.int64:
        raise TypeError(f"target must hold int64 class numbers, got {target.dtype}: convert with .long()")
    for name, rows in (("target", target), ("weights", weights)):
        if rows is None:
            continue
        if rows.shape != features.shape[:1]:
            raise ValueError(f"{name} must be [N] = [{features.shape[0]}], got {list(rows.shape)}")
        if rows.device != features.device:
            raise ValueError(f"{name} is on {rows.device}, features on {features.device}: move one of them")
    check_number("temperature", temperature, torch.finfo(torch.float32).tiny)
    if denominator not in ("all", "negatives"):
        raise ValueError(f"denominator must be 'all' or 'negatives', got {denominator!r}")
    if weights is not None:
        if weights.is_complex():
            raise TypeError(f"weights must be real numbers, got {weights.dtype}")
        weights = weights.detach().to(accumulator(features))
    loss, *_ = _call_discrimination_loss(features, target, temperature, weights, denominator)
    return loss
