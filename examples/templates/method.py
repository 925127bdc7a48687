"""A training method to copy: bat_fast/methods/NAME.py, and ``--method.name NAME`` works.

Here: adversarial training that looks away from what is learnt, as the focal loss does (Lin et al. 2017).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast.batch import Batch
from bat_fast.methods.base import Method, Terms
from bat_fast.methods.options import at_least
from bat_fast.methods.outcome import outcome


@dataclass(frozen=True, kw_only=True)
class Template(Method):  # the file gives the name; a module holds one method
    """``mean_i (1 - p_y(x'_i))^gamma CE(f(x'_i), y_i)``, where ``x'`` climbs the cross-entropy."""

    gamma: float = 1.0  # fields are options: --method.gamma 2
    """Exponent, >= 0; 0 is PGD-AT."""

    def __post_init__(self) -> None:
        at_least("template.gamma", self.gamma, 0.0)

    # What the attack climbs is cross-entropy; another objective overrides `attack_loss`.

    def __call__(self, model: nn.Module, batch: Batch, x_adv: Tensor, epoch: int) -> Terms:
        """The loss of one batch; metrics ``loss`` and ``robust_acc``."""
        logits = model(x_adv)
        ce = F.cross_entropy(logits, batch.y, reduction="none")
        easy = (-ce.detach()).exp()  # p_y; a weight carries no gradient
        loss = ((1 - easy) ** self.gamma * ce).mean()
        return outcome(loss, logits, batch.y, accuracy="robust_acc")
