"""HAT: helper-based adversarial training (Rade and Moosavi-Dezfooli 2022, openreview Azh9QBQ4tR7)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast import ops
from bat_fast.attacks.loss import AttackLoss
from bat_fast.batch import Batch
from bat_fast.methods.base import Method, Terms
from bat_fast.methods.options import at_least
from bat_fast.methods.outcome import outcome


@dataclass(kw_only=True)
class Hat(Method):
    """TRADES, and beyond the adversarial image the label that a standard model gives it: no excessive margin.

    With a helper ``g`` that was trained on clean images and stays as it is::

        x^h  = x + reach (x' - x),  y^h = argmax g(x')
        loss = mean_i CE(f(x_i), y_i) + beta mean_i KL(softmax f(x_i) || softmax f(x'_i))
               + gamma mean_i CE(f(x^h_i), y^h_i)

    and ``x'`` climbs the KL. x^h may leave [0, 1]. Source of the formulas: imrahulr/hat, core/utils/hat.py,
    which attacks in eval mode from ``x + 0.001 n``.
    """

    helper: str = ""
    """Run folder (or model.safetensors) of the helper, trained with ``method: standard``."""
    reach: float = 2.0
    """h, how far x^h is from x in units of the perturbation, >= 0."""
    beta: float = 2.5
    """Weight of the KL, >= 0."""
    gamma: float = 0.5
    """Weight of the helper's label, >= 0."""

    def __post_init__(self) -> None:
        for name in ("reach", "beta", "gamma"):
            at_least(f"hat.{name}", getattr(self, name), 0.0)
        self._helper: nn.Module | None = None

    def consult(self, model: nn.Module) -> None:
        """Take the helper."""
        self._helper = model

    def attack_loss(self, model: nn.Module, batch: Batch, epoch: int) -> AttackLoss:
        """The KL, away from the attacked model's answer to the clean images."""
        return AttackLoss("kl", weight=self.beta)

    def __call__(self, model: nn.Module, batch: Batch, x_adv: Tensor, epoch: int) -> Terms:
        """The loss of one batch; metrics ``loss``, ``kl``, ``helper_acc``, ``robust_acc`` and ``clean_acc``.

        Raises:
            RuntimeError: there is no helper.
        """
        if self._helper is None:
            raise RuntimeError("hat: call consult(model) with the helper before the first batch")
        with torch.no_grad():
            label = self._helper(x_adv).argmax(1)
        clean, adv = model(batch.x), model(x_adv)
        helped = model(batch.x + self.reach * (x_adv - batch.x))
        kl, _ = ops.kl_loss(clean, adv)
        loss = F.cross_entropy(clean, batch.y) + self.beta * kl + self.gamma * F.cross_entropy(helped, label)
        followed = (helped.detach().argmax(1) == label).float().mean()
        return outcome(loss, adv, batch.y, accuracy="robust_acc", fitted=clean, kl=kl, helper_acc=followed)
