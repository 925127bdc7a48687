"""Adversarial training for free (Shafahi et al. 2019, arXiv:1904.12843)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bat_fast.methods.options import at_least
from bat_fast.methods.pgd_at import PgdAt


@dataclass(frozen=True, kw_only=True)
class Free(PgdAt):
    """Each batch is trained on m times, and one backward pass serves weights and images::

        x' = clip(x + U(-eps, eps), 0, 1), then m times:
            g, G = gradients of mean_i CE(f(x'_i), y_i) in x' and in the weights
            the weights descend G;  x' = clip(clip(x' + step eps sign(g), x - eps, x + eps), 0, 1)

    An epoch makes m updates per batch, so a run needs 1/m of the epochs. Where the published code goes on
    from the perturbation that the previous batch left at the same place, and never cuts it to the range of
    pixels, x' starts anew here, keyed by sample: a run then repeats on any number of devices and carries no
    state.
    """

    replays: int = 8
    """m, >= 1; 8 in the paper."""
    step: float = 1.0
    """Step in units of eps, > 0."""

    def __post_init__(self) -> None:
        at_least("free.replays", self.replays, 1)
        at_least("free.step", self.step, 0.0, open_end=True)

    def attack_options(self, attack: Mapping[str, Any]) -> dict[str, Any]:
        """Steps of ``step * eps``, one per replay."""
        return {"steps": 1, "step_size": self.step * attack["eps"], "random_start": True}
