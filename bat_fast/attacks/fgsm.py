"""The fast gradient sign method."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bat_fast.attacks.pgd import PGD


class FGSM(PGD):
    """One step as long as the radius, from the image itself (Goodfellow et al. 2015, arXiv:1412.6572).

    Args:
        model, eps: as in `bat_fast.attacks.Attack`.
        options: ``norm``, ``loss``, ``bn_mode``, ``precision``, ``engine``, ``seed``, ``lo`` and ``hi``,
            likewise.

    Raises:
        ValueError, TypeError: an argument is out of range; the message names it.
    """

    decides = ("step_size", "steps", "random_start", "restarts")

    def __init__(self, model: nn.Module, eps: float | str | Tensor = 8 / 255, **options: Any) -> None:
        super().__init__(model, eps, step_size=eps, steps=1, random_start=False, **options)
