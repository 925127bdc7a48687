"""PGD of torchattacks: ``pip install torchattacks``. It also serves MAIR, which has the same base class."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bat_fast.attacks import untouched
from bat_fast.integrations.attacker import Attacker, host

_HOST = host("torchattacks")


class PGD(_HOST.PGD):  # type: ignore[misc, name-defined]
    """``torchattacks.PGD``, computed by `bat_fast.PGD`.

    Targeted modes, ``set_normalization_used``, ``save`` and ``MultiAttack`` work as in the host. Unlike
    there, all modes of the model are afterwards as they were, those of frozen parts too.

    Args:
        model, eps, alpha, steps, random_start: as in the host.
        options: of `bat_fast.PGD`: ``norm``, ``precision``, ``engine``, ``seed``, ``keep``.
    """

    def __init__(
        self,
        model: nn.Module,
        eps: float = 8 / 255,
        alpha: float = 2 / 255,
        steps: int = 10,
        random_start: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(model, eps, alpha, steps, random_start)
        self.options, self._attacker = options, Attacker()

    def __call__(self, images: Tensor, labels: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Adversarial images of ``images`` [N, C, H, W] with ``labels`` [N], on the device of the model."""
        if self._model_training:
            raise ValueError("set_model_training_mode: the model is attacked in eval mode")
        with untouched(self.model, "eval"):
            adversarial: Tensor = super().__call__(images, labels, *args, **kwargs)
        return adversarial

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """The attack, on pixels in [0, 1]."""
        x, y = images.detach().to(self.device), labels.detach().to(self.device)
        used = self.normalization_used if self._normalization_applied is False else None
        return self._attacker(
            self.model, x, y, self.get_target_label(x, y) if self.targeted else None,
            mean=used and used["mean"].flatten().tolist(), std=used and used["std"].flatten().tolist(),
            eps=self.eps, step_size=self.alpha, steps=self.steps, random_start=self.random_start,
            **self.options,
        )  # fmt: skip
