"""Misclassification-aware adversarial training, MART (Wang et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from bat_fast import ops
from bat_fast.batch import Batch
from bat_fast.methods.base import Method, Terms
from bat_fast.methods.options import at_least
from bat_fast.methods.outcome import outcome


@dataclass(frozen=True, kw_only=True)
class Mart(Method):
    """Stability counts most where the clean image is not understood::

        p = softmax f(x),  p' = softmax f(x')
        BCE_i = -log p'_y - log(1.0001 - max_{t != y} p'_t + 1e-12)
        loss  = mean_i BCE_i + beta mean_i KL(p || p' + 1e-12) (1.0000001 - p_y)

    and ``x'`` climbs the cross-entropy. The published code attacks in eval mode from ``x + 0.001 n``.
    """

    beta: float = 5.0
    """Weight of the KL, >= 0; 5 in the paper, 6 in its code."""

    def __post_init__(self) -> None:
        at_least("mart.beta", self.beta, 0.0)

    def __call__(self, model: nn.Module, batch: Batch, x_adv: Tensor, epoch: int) -> Terms:
        """The loss of one batch; metrics ``loss``, ``robust_acc`` and ``clean_acc``."""
        clean, adv = model(batch.x), model(x_adv)
        loss, _ = ops.mart_loss(clean, adv, batch.y, beta=self.beta)
        clean_acc = (clean.detach().argmax(1) == batch.y).float().mean()
        return outcome(loss, adv, batch.y, accuracy="robust_acc", clean_acc=clean_acc)
