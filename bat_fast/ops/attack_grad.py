"""The losses that attacks climb, with their analytic gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bat_fast._checks import attack_arguments, floating
from bat_fast._native import accumulator, new_rows, operator, valid_labels

__all__ = ["attack_grad"]


def _fake(logits: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return torch.empty_like(logits, memory_format=torch.contiguous_format), new_rows(logits)


@operator(
    "attack_grad(Tensor logits, Tensor target, str loss, Tensor? reference, Tensor? soft, float soft_weight,"
    " bool targeted, Tensor? label) -> (Tensor grad, Tensor per_sample)",
    fake=_fake,
)
def _attack_grad_reference(
    logits: Tensor,
    target: Tensor,
    loss: str,
    reference: Tensor | None,
    soft: Tensor | None,
    soft_weight: float,
    targeted: bool,
    label: Tensor | None,
) -> tuple[Tensor, Tensor]:
    z = logits.to(accumulator(logits))
    valid, goal = valid_labels(target, logits.shape[1])
    known, true = valid_labels(target if label is None else label, logits.shape[1])
    if loss in ("margin", "dlr"):
        grad, value = _ratio(z, goal, true, loss, targeted)
    elif loss == "kl":
        assert reference is not None
        log_q, log_p = reference.to(z.dtype).log_softmax(1), z.log_softmax(1)
        grad = log_p.exp() - log_q.exp()
        value = torch.where(log_q.exp() == 0, 0.0, log_q.exp() * (log_q - log_p)).sum(1)
    else:
        sign = -1.0 if targeted else 1.0
        log_p = z.log_softmax(1)
        grad = sign * (log_p.exp() - F.one_hot(goal, z.shape[1]))
        value = -sign * log_p.gather(1, goal[:, None]).squeeze(1)
    if soft is not None:
        p = z.softmax(1)
        d = p - soft.to(z.dtype)
        value = value + soft_weight * d.square().mean(1)
        grad = grad + 2 * soft_weight / z.shape[1] * p * (d - (p * d).sum(1, keepdim=True))
    ok, nan = valid & known, float("nan")
    grad = torch.where(ok[:, None], grad, nan).to(logits.dtype).contiguous()
    return grad, torch.where(ok, value, nan)


def _ratio(z: Tensor, goal: Tensor, true: Tensor, loss: str, targeted: bool) -> tuple[Tensor, Tensor]:
    """Gradient and value of the margin and of the difference-of-logits ratio."""

    def onehot(column: Tensor) -> Tensor:
        return F.one_hot(column, z.shape[1]).to(z.dtype)

    def at(column: Tensor) -> Tensor:
        return z.gather(1, column[:, None]).squeeze(1)

    order = z.argsort(dim=1, descending=True, stable=True)
    up = torch.where(order[:, 0] == goal, order[:, min(1, z.shape[1] - 1)], order[:, 0])
    numerator, direction = at(up) - at(goal), onehot(up) - onehot(goal)
    if loss == "margin":
        sign = -1.0 if targeted else 1.0
        grad, value = sign * direction, sign * numerator
    else:
        if targeted:
            numerator, direction = at(goal) - at(true), onehot(goal) - onehot(true)
        third, fourth = order[:, 2], order[:, 3 if targeted else 2]
        slope = onehot(order[:, 0]) - (onehot(third) + onehot(fourth)) / 2
        scale = (1 / (at(order[:, 0]) - (at(third) + at(fourth)) / 2 + 1e-12))[:, None]
        value = numerator * scale.squeeze(1)
        grad = scale * (direction - value[:, None] * slope)
    return torch.where(z.isnan().any(1, keepdim=True), float("nan"), grad), value


def attack_grad(
    logits: Tensor,
    target: Tensor,
    *,
    loss: str = "ce",
    reference: Tensor | None = None,
    soft: Tensor | None = None,
    soft_weight: float = 0.0,
    targeted: bool = False,
    label: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Value of an attack loss and its gradient with respect to the logits, in one pass.

    The reduction is the sum over samples, so row i of the gradient depends on sample i alone. With
    ``p = softmax(z)`` and the sorted logits ``z_(1) >= z_(2) >= ...`` (ties: the first class first):

    - ``ce``: ``-log p_y``;
    - ``margin``: ``max_{t != y} z_t - z_y`` (Carlini & Wagner 2017);
    - ``dlr``: ``(max_{t != y} z_t - z_y) / (z_(1) - z_(3) + 1e-12)``; targeted
      ``(z_target - z_label) / (z_(1) - (z_(3) + z_(4)) / 2 + 1e-12)`` (Croce & Hein 2020);
    - ``kl``: ``KL(softmax(reference) || p)`` (TRADES, Zhang et al. 2019);
    - ``ce+te``, ``kl+te``: the same plus ``soft_weight * mean_c (p_c - soft_c)^2`` (Dong et al. 2021).

    Args:
        logits: [N, C] float32, float64 or 16 bits (CUDA: no float64).
        target: [N] int64 classes, 0 <= target < C.
        loss: one of the names above.
        reference: [N, C] logits, for ``kl``.
        soft: [N, C] soft targets, for ``+te``.
        soft_weight: weight of the squared error, >= 0.
        targeted: move towards ``target`` instead of away from it: the sign of ``ce`` and ``margin`` is
            flipped, ``dlr`` takes its targeted form.
        label: [N] int64 true classes, which targeted ``dlr`` needs.

    Returns:
        grad [N, C] in the dtype of ``logits``, per_sample [N] (float64 for float64, else float32).

    Raises:
        ValueError: a shape, device, label, name or number of classes does not fit. TypeError: a dtype
            does not.
    """
    wide = floating("logits", logits).detach()
    climbed = attack_arguments(wide, target, loss, reference, soft, soft_weight, targeted, label)
    grad, per_sample = torch.ops.bat_fast.attack_grad(wide, target, *climbed)
    return grad.to(logits.dtype), per_sample
