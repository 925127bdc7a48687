"""What the operators on small networks share: the checks, and the network as their references see it."""

from __future__ import annotations

import torch
from torch import Tensor

from bat_fast._checks import check_floating, check_labels, check_like, check_number, check_range, choice
from bat_fast._native import reference_of


def check_small(name: str, x: Tensor, plan: Tensor, weights: Tensor) -> None:
    """Raise unless ``x`` are images of a kind that a small network takes, with its plan and weights."""
    check_floating(name, x)
    if x.dim() != 4:
        raise ValueError(f"{name} must be [N, C, H, W], got {list(x.shape)}")
    if plan.dtype != torch.int64 or plan.dim() != 2 or not plan.is_cpu:
        raise ValueError("plan must be what network_plan returns")
    if weights.dtype != x.dtype or weights.device != x.device or weights.dim() != 1:
        raise ValueError(
            f"weights must be flat {x.dtype} on {x.device}, got {list(weights.shape)} {weights.dtype}"
        )


def check_search(
    adv: Tensor, clean: Tensor, y: Tensor, plan: Tensor, weights: Tensor, classes: int,
    norm: str, eps: float, lo: float, hi: float,
) -> Tensor:  # fmt: skip
    """Raise unless a search for misclassified images can begin; empty logits [N, K] for further checks."""
    check_small("adv", adv, plan, weights)
    check_like("clean", clean, "adv", adv)
    if clean.dtype != adv.dtype:
        raise TypeError(f"clean must have the dtype of adv, {adv.dtype}, got {clean.dtype}")
    choice("norm", norm, ("linf", "l2"))
    check_number("eps", eps, 0.0)
    check_range(lo, hi)
    logits = adv.new_empty(len(adv), classes)
    check_labels("y", y, logits)
    return logits


class SmallReference:
    """A small network by the reference of `network_gradient`, as the loops of attacks take a network.

    Args:
        plan, weights, classes: as in `bat_fast.ops.network.network_gradient`.
    """

    def __init__(self, plan: Tensor, weights: Tensor, classes: int) -> None:
        self._given = plan, weights, classes
        self._gradient = reference_of("network_gradient")

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of ``x`` [N, C, H, W]."""
        self._x = x
        logits: Tensor = self._gradient(x, None, *self._given)[0]
        return logits

    def backward(self, grad: Tensor) -> Tensor:
        """Gradient [N, C, H, W] at the pixels, from ``grad`` [N, K] at the logits."""
        return self.both(self._x, grad)[1]

    def both(self, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N, K] of ``x``, and the gradient at it."""
        logits, result = self._gradient(x, grad, *self._given)
        return logits, result
