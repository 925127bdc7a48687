"""What an attack is called for."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from bat_fast.attacks.done import Progress
from bat_fast.attacks.loss import AttackLoss


@dataclass(frozen=True, eq=False)
class Problem:
    """What an attack is called for: a checked batch, and what to climb on it."""

    clean: Tensor
    """[N, C, H, W] pixels."""
    y: Tensor
    """[N] int64 true classes."""
    targets: Tensor | None
    """[N] int64 classes to move towards; None moves away from ``y``."""
    objective: AttackLoss
    """What to climb."""
    index: Tensor | None
    """[N] int64 data set ids, which key all random numbers; None numbers the batch from 0."""
    draw: int
    """Which random numbers of these samples."""
    progress: Progress = field(default_factory=Progress)
    """How far the attack is."""

    @property
    def tensors(self) -> dict[str, Tensor | None]:
        """All tensors by name, as `bat_fast.attacks.goal.Goal.of` takes them."""
        objective = self.objective
        return {
            "clean": self.clean, "y": self.y, "targets": self.targets,
            "reference": objective.reference, "soft": objective.soft,
        }  # fmt: skip
