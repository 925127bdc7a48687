"""Fast adversarial training: FGSM from a random start (Wong et al. 2020, arXiv:2001.03994)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bat_fast.methods.options import at_least
from bat_fast.methods.pgd_at import PgdAt


@dataclass(frozen=True, kw_only=True)
class FgsmRs(PgdAt):
    """PGD-AT whose attack is one step of ``step * eps`` from a random point of the ball, projected on it::

        x' = clip(clip(x + U(-eps, eps) + step eps sign(g), x - eps, x + eps), 0, 1)

    ``attack.steps`` and ``attack.step_size`` are left to the evaluation. A single step may collapse (watch
    ``val/collapsed``): a smaller step, N-FGSM or more steps help.
    """

    step: float = 1.25
    """Step in units of eps, > 0."""

    def __post_init__(self) -> None:
        at_least("fgsm_rs.step", self.step, 0.0, open_end=True)

    def attack_options(self, attack: Mapping[str, Any]) -> dict[str, Any]:
        """One step of ``step * eps``."""
        return {"steps": 1, "step_size": self.step * attack["eps"], "random_start": True}
