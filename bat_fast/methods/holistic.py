"""Holistic robust training, HR and HD (Bennouna, Lucas and Van Parys 2023, arXiv:2303.02251)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast import ops
from bat_fast.batch import Batch
from bat_fast.methods.base import Method, Terms
from bat_fast.methods.options import at_least, choice
from bat_fast.methods.outcome import outcome

_LEAST_ALPHA, _LEAST_R = 1e-6, 0.001  # what the published solver needs


@dataclass(frozen=True, kw_only=True)
class Holistic(Method):
    """The loss under the worst distribution near the batch. With ``l_i = CE(f(x'_i), y_i)``::

        loss = V = max_w  sum_i w_i l_i + w_{N+1} max_i l_i

    over the weights that statistical error (a Kullback-Leibler ball of radius r) and corruption (mass alpha,
    moved anywhere) can make of 1/N: ``hd`` moves first and then tilts, ``hr`` the other way round. The
    radius of the attack guards against evasion. The weights carry no gradient (envelope theorem). V bounds
    the expected loss: it is the certificate of the paper, and the metric ``certificate``.
    alpha = r = 0 is PGD-AT.
    """

    form: Literal["hd", "hr"] = "hd"
    """Order of the two errors."""
    alpha: float = 0.0
    """Fraction of corrupted data, >= 0."""
    r: float = 0.2
    """Statistical radius in nats, >= 0; 0.2 with alpha=0 against robust overfitting in the paper."""

    floors: bool = False
    """Take 1e-6 for an alpha of 0 and, beside an alpha that is none, 0.001 for an r of 0, as HR.py does."""

    def __post_init__(self) -> None:
        choice("holistic.form", self.form, ("hd", "hr"))
        at_least("holistic.alpha", self.alpha, 0.0)
        at_least("holistic.r", self.r, 0.0)

    def __call__(self, model: nn.Module, batch: Batch, x_adv: Tensor, epoch: int) -> Terms:
        """The loss of one batch; metrics ``loss``, ``certificate`` (which is V) and ``robust_acc``."""
        logits = model(x_adv)
        losses = F.cross_entropy(logits, batch.y, reduction="none")
        alpha, r = self._floored() if self.floors else (self.alpha, self.r)
        value = ops.holistic_loss(losses, alpha=alpha, r=r, form=self.form)
        return outcome(value, logits, batch.y, accuracy="robust_acc", certificate=value)

    def _floored(self) -> tuple[float, float]:
        return self.alpha or _LEAST_ALPHA, _LEAST_R if self.alpha and not self.r else self.r
