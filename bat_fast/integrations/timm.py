"""Methods of adversarial training as a task of timm's training script: ``pip install timm``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bat_fast import methods
from bat_fast.attacks import PGD, untouched
from bat_fast.batch import Batch
from bat_fast.integrations.attacker import host

_HOST = host("timm.task")


class AdversarialTask(_HOST.ClassificationTask):  # type: ignore[misc, name-defined]
    """A ``ClassificationTask`` whose loss is that of a method, on images that it attacks first.

    The criterion of the host is not used. ``set_epoch`` tells methods that change with the epoch.

    Args:
        model: takes pixels in [0, 1], and normalises inside: `bat_fast.models.Normalize` before it.
        method: name of a method that keeps nothing of each sample, see docs/methods.md.
        method_options: of the method.
        attack: options of `bat_fast.PGD`.
        options: of the host.

    Raises:
        ValueError: no such method, or one that the host's batches are not enough for.
    """

    def __init__(
        self,
        model: nn.Module,
        method: str = "pgd_at",
        method_options: dict[str, Any] | None = None,
        attack: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self.method, self.epoch = methods.create(method, **method_options or {}), 0
        if self.method.replays:
            raise ValueError(f"method {method} takes its steps between updates: it needs bat_fast's trainer")
        if type(self.method).prepare is not methods.Method.prepare:  # and batches of the host have no ids
            raise ValueError(f"method {method} remembers each sample: it needs bat_fast's trainer")
        self._attack = PGD(model, **self.method.attack_options(attack or {}) | (attack or {}))

    def set_epoch(self, epoch: int) -> None:
        """Tell the method the epoch that begins."""
        self.epoch = epoch

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        """``loss`` of the method and ``output`` [N, K], for images ``input`` [N, C, H, W], ``target`` [N]."""
        net = self._attack.model
        batch = Batch(input, target, torch.arange(len(input), device=input.device))
        with torch.no_grad(), untouched(net, self._attack.bn_mode):
            objective = self.method.attack_loss(net, batch, self.epoch)
        x_adv = input if objective is None else self._attack(input, target, objective=objective)
        terms = self.method(self.trainable_module, batch, x_adv, self.epoch)
        return {"loss": terms.total} | ({} if terms.logits is None else {"output": terms.logits})
