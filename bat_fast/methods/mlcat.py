"""MLCAT: minimum loss constrained adversarial training (Yu et al. 2022, arXiv:2206.08675)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast.batch import Batch
from bat_fast.methods.base import Method, Terms
from bat_fast.methods.options import at_least
from bat_fast.methods.outcome import outcome

_LEAST = 1e-6
"""Below it float32 has the loss as 0 while its gradient is not, and the factor would make that anything."""


@dataclass(frozen=True, kw_only=True)
class Mlcat(Method):
    """PGD-AT in which no sample has a smaller loss than ``threshold``: loss scaling, MLCAT-LS.

    With ``l_i = CE(f(x'_i), y_i)``::

        loss = mean_i c_i l_i,  c_i = max(1, threshold / l_i)

    With ``detach`` the factor carries no gradient: samples of small loss pull harder, as if theirs were
    ``threshold``. Without, ``c_i l_i`` is ``max(l_i, threshold)``, and such samples do not pull at all: this
    is what the published code does (ChaojianYu/Understanding-Robust-Overfitting,
    train_step4_scale_15.py:240-247), whatever was meant. Its other form, MLCAT-WP, perturbs the weights
    against small losses alone: it is ``pgd_at`` with ``optim.awp: 0.01``, ``awp_steps: 10``, ``awp_norm:
    model`` and ``awp_below: 1.5``.
    """

    threshold: float = 1.5
    """Least loss of a sample, in nats, >= 0; 0 is PGD-AT."""
    detach: bool = True
    """Take the factor as a constant."""

    def __post_init__(self) -> None:
        at_least("mlcat.threshold", self.threshold, 0.0)

    def __call__(self, model: nn.Module, batch: Batch, x_adv: Tensor, epoch: int) -> Terms:
        """The loss of one batch; metrics ``loss``, ``robust_acc``, ``constrained`` (share below)."""
        logits = model(x_adv)
        losses = F.cross_entropy(logits, batch.y, reduction="none")
        known = losses.detach()
        if self.detach:
            held = losses * (self.threshold / known.clamp(min=_LEAST)).clamp(min=1.0)
        else:
            held = losses.clamp(min=self.threshold)
        share = (known < self.threshold).to(known.dtype).mean()
        return outcome(held.mean(), logits, batch.y, accuracy="robust_acc", constrained=share)
