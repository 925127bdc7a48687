"""The objective of an attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Logits [N, K] float32 (float64 of a model of float64) and classes [N] -> losses [N], or their sum or
mean, in torch."""


@dataclass(frozen=True)
class AttackLoss:
    """The objective of the inner maximisation, as `bat_fast.ops.attack_grad` takes it.

    A method returns one of these instead of a Python loss, so that the gradient with respect to the
    logits is one fused kernel and there is one PGD loop in the whole project.
    """

    loss: str | LossFunction = "ce"
    """Name of the row loss, or a function in torch, which costs a pass of autograd over the logits."""

    reference: Tensor | None = None
    """[N, C] logits that ``kl`` moves away from. None: the attack computes those of the clean images."""

    soft: Tensor | None = None
    """[N, C] soft targets of the additional squared-error term (``ce+te``, ``kl+te``)."""

    soft_weight: float = 0.0
    """Weight of that term."""

    weight: float = 1.0
    """Weight of ``loss`` where a method around this one adds a term; alone it moves no step."""
