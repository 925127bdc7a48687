"""N-FGSM: a single step after strong noise (de Jorge et al. 2022, arXiv:2202.01181)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bat_fast.methods.options import at_least
from bat_fast.methods.pgd_at import PgdAt


@dataclass(frozen=True, kw_only=True)
class NFgsm(PgdAt):
    """PGD-AT whose attack is one step from noise k times as wide as the ball, and never projected on it::

        x' = clip(clip(x + U(-k eps, k eps), 0, 1) + step eps sign(g), 0, 1)

    The images trained on may leave the ball: that is what keeps a single step from collapsing.
    """

    k: float = 2.0
    """Width of the noise in units of eps, >= 0."""
    step: float = 1.0
    """Step in units of eps, > 0."""

    def __post_init__(self) -> None:
        at_least("n_fgsm.k", self.k, 0.0)
        at_least("n_fgsm.step", self.step, 0.0, open_end=True)

    def attack_options(self, attack: Mapping[str, Any]) -> dict[str, Any]:
        """One step from wider noise, without projection."""
        options = {"steps": 1, "step_size": self.step * attack["eps"], "random_start": True}
        return options | {"start_scale": self.k, "project": False}
