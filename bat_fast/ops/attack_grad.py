"""The losses that attacks climb, with their analytic gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bat_fast._native import (
    accumulator,
    check_floating,
    check_labels,
    check_number,
    check_rows,
    new_rows,
    operator,
    valid_labels,
)

# Name -> the row loss, and whether the squared distance to soft targets is added.
_LOSSES = {
    "ce": ("ce", False),
    "margin": ("margin", False),
    "dlr": ("dlr", False),
    "kl": ("kl", False),
    "ce+te": ("ce", True),
    "kl+te": ("kl", True),
}


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
        logits: [N, C] float32 or float64 (CUDA: float32, float16, bfloat16).
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
    check_floating("logits", logits)
    check_labels("target", target, logits)
    if loss not in _LOSSES:
        raise ValueError(f"loss must be one of {', '.join(_LOSSES)}, got {loss!r}")
    base, with_soft = _LOSSES[loss]
    if base != "ce" or with_soft or targeted:
        _check_inputs(logits, loss, reference, soft, soft_weight, targeted, label)
        reference = None if base != "kl" or reference is None else reference.detach().to(logits.dtype)
        soft = None if not with_soft or soft is None else soft.detach().to(logits.dtype)
        label = label if base == "dlr" and targeted else None
    else:
        reference = soft = label = None
    return torch.ops.bat_fast.attack_grad(
        logits.detach(), target, base, reference, soft, soft_weight, targeted, label
    )


def _check_inputs(
    logits: Tensor,
    loss: str,
    reference: Tensor | None,
    soft: Tensor | None,
    soft_weight: float,
    targeted: bool,
    label: Tensor | None,
) -> None:
    base, with_soft = _LOSSES[loss]
    check_number("soft_weight", soft_weight, 0.0)
    if targeted and (base == "kl" or with_soft):
        raise ValueError(f"targeted: {loss} has no targeted form; use ce, margin or dlr")
    least = {"margin": 2, "dlr": 4 if targeted else 3}.get(base, 1)
    if logits.shape[1] < least:
        raise ValueError(f"logits must have at least {least} classes for this loss, got {logits.shape[1]}")
    for name, rows, needed in (("reference", reference, base == "kl"), ("soft", soft, with_soft)):
        if needed and rows is None:
            raise ValueError(f"{name} [N, C] is missing: {loss} needs it")
        if rows is not None:
            check_rows(name, rows, logits)
    if base == "dlr" and targeted:
        if label is None:
            raise ValueError("label [N], the true classes, is missing: targeted dlr needs it")
        check_labels("label", label, logits)
