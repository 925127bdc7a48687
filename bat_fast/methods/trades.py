"""TRADES (Zhang et al. 2019, arXiv:1901.08573)."""

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


@dataclass(frozen=True, kw_only=True)
class Trades(Method):
    """Clean accuracy and stability as two terms::

        loss = mean_i CE(f(x_i), y_i) + beta mean_i KL(softmax f(x_i) || softmax f(x'_i))

    and ``x'`` climbs the KL. The published code attacks in eval mode from ``x + 0.001 n``
    (``attack: {bn_mode: eval, random_start: gaussian}``), and passes ``x``, ``x'`` and ``x`` again, which
    counts the clean images twice in the running statistics: `third_pass`.
    """

    beta: float = 6.0
    """Weight of the KL, >= 0."""

    third_pass: bool = False
    """Let the running statistics count the clean images once more, as in the published code."""

    def __post_init__(self) -> None:
        at_least("trades.beta", self.beta, 0.0)

    def attack_loss(self, model: nn.Module, batch: Batch, epoch: int) -> AttackLoss:
        """The KL, away from the attacked model's answer to the clean images."""
        return AttackLoss("kl", weight=self.beta)

    def __call__(self, model: nn.Module, batch: Batch, x_adv: Tensor, epoch: int) -> Terms:
        """The loss of one batch; metrics ``loss``, ``kl``, ``robust_acc`` and ``clean_acc``."""
        clean, adv = model(batch.x), model(x_adv)
        if self.third_pass:
            with torch.no_grad():  # its answer is that of the first pass, and so is the gradient
                model(batch.x)
        kl, _ = ops.kl_loss(clean, adv)
        loss = F.cross_entropy(clean, batch.y) + self.beta * kl
        return outcome(loss, adv, batch.y, accuracy="robust_acc", fitted=clean, kl=kl)
