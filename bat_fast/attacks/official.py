"""The losses of the official AutoAttack as it writes them, for runs that repeat it number by number."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bat_fast.attacks.goal import Goal

_TINY = 1e-12  # the official code keeps quotients finite by it


@dataclass(frozen=True, eq=False)
class OfficialGoal(Goal):
    """A goal whose gradient autograd takes of the official expressions, with their rounding.

    Args:
        loss, soft_weight, target, label, targeted, reference, soft: as in `bat_fast.attacks.goal.Goal`; the
            losses are ``ce``, ``dlr`` and targeted ``dlr``.
    """

    def rows(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient [N, K] and value [N] of the loss of each row; see `bat_fast.attacks.goal.Goal.rows`."""
        with torch.enable_grad():
            z = logits.detach().requires_grad_()
            value = self._value(z)
            (grad,) = torch.autograd.grad(value.sum(), z)
        return grad, value.detach()

    def _value(self, z: Tensor) -> Tensor:
        if self.loss == "ce" and not self.targeted:
            return F.cross_entropy(z, self.label, reduction="none")
        if self.loss != "dlr":
            raise ValueError(f"replay: the official code has no {self.loss} here; use replay=False")
        ordered, order = z.sort(dim=1)
        row = torch.arange(len(z), device=z.device)
        if self.targeted:
            scale = ordered[:, -1] - 0.5 * (ordered[:, -3] + ordered[:, -4]) + _TINY
            return -(z[row, self.label] - z[row, self.target]) / scale
        right = (order[:, -1] == self.label).float()
        other = ordered[:, -2] * right, ordered[:, -1] * (1.0 - right)
        return -(z[row, self.label] - other[0] - other[1]) / (ordered[:, -1] - ordered[:, -3] + _TINY)
