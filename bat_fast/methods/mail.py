"""MAIL: margins reweight adversarial training (Liu et al. 2021, arXiv:2106.07904)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast.attacks.loss import AttackLoss
from bat_fast.batch import Batch
from bat_fast.methods.base import Method, Terms
from bat_fast.methods.options import at_least, choice
from bat_fast.methods.outcome import outcome


@dataclass(frozen=True, kw_only=True)
class Mail(Method):
    """What is close to the boundary, or beyond it, counts most: the opposite of `bat_fast.methods.bat`.

    With ``p' = softmax f(x')``, and weights that carry no gradient::

        m_i  = max_{t != y} p'_t - p'_y
        w_i  = scale sigmoid(slope (m_i + bias)), 1 before the epoch ``start``
        loss = mean_i w_i CE(f(x'_i), y_i)                                           over pgd_at
        loss = mean_i CE(f(x_i), y_i) + beta mean_i w_i KL(softmax f(x_i) || p'_i)    over trades

    Source of the formulas: QizhouWang/MAIL, mail_loss.py, whose paper divides the weights by their mean
    (``normalize: mean``) where the code has the constant 3. The code attacks in eval mode from
    ``x + 0.001 n``: the cross-entropy, or the KL over trades.
    """

    over: Literal["pgd_at", "trades"] = "pgd_at"
    """The method underneath."""
    beta: float = 5.0
    """Weight of the KL over trades, >= 0."""
    slope: float = 1.0
    """Slope of the weights in the margin, >= 0."""
    bias: float = -1.5
    """Added to the margin."""
    scale: float = 3.0
    """Largest weight, > 0."""
    normalize: Literal["scale", "mean"] = "scale"
    """Multiply the weights by ``scale``, or divide them by their mean in the batch."""
    start: int = 75
    """Epoch, counted from 0, in which the weights begin."""

    def __post_init__(self) -> None:
        choice("mail.over", self.over, ("pgd_at", "trades"))
        choice("mail.normalize", self.normalize, ("scale", "mean"))
        at_least("mail.beta", self.beta, 0.0)
        at_least("mail.slope", self.slope, 0.0)
        at_least("mail.scale", self.scale, 0.0, open_end=True)
        at_least("mail.start", self.start, 0)

    def attack_loss(self, model: nn.Module, batch: Batch, epoch: int) -> AttackLoss:
        """The cross-entropy, or the KL over trades."""
        return AttackLoss("kl", weight=self.beta) if self.over == "trades" else AttackLoss("ce")

    def __call__(self, model: nn.Module, batch: Batch, x_adv: Tensor, epoch: int) -> Terms:
        """The loss of one batch; metrics ``loss``, ``robust_acc``, ``weight_mean`` (and ``clean_acc``)."""
        if self.over == "pgd_at":
            logits = model(x_adv)
            weights = self.weights(logits, batch.y, epoch)
            loss = (weights * F.cross_entropy(logits, batch.y, reduction="none")).mean()
            return outcome(loss, logits, batch.y, accuracy="robust_acc", weight_mean=weights.mean())
        clean, adv = model(batch.x), model(x_adv)
        weights = self.weights(adv, batch.y, epoch)
        p, log_p = clean.softmax(1), clean.log_softmax(1)
        kl = (p * (log_p - adv.log_softmax(1))).sum(1)
        loss = F.cross_entropy(clean, batch.y) + self.beta * (weights * kl).mean()
        named = {"weight_mean": weights.mean()}
        return outcome(loss, adv, batch.y, accuracy="robust_acc", fitted=clean, **named)

    def weights(self, logits: Tensor, target: Tensor, epoch: int) -> Tensor:
        """w [N], detached, of the logits [N, C] of adversarial images and their classes [N]."""
        p = logits.detach().softmax(1)
        if epoch < self.start:
            return p.new_ones(len(p))
        true = F.one_hot(target, p.shape[1]).bool()
        margin = p.masked_fill(true, 0.0).amax(1) - p[true]
        weights = (self.slope * (margin + self.bias)).sigmoid()
        return weights / weights.mean() if self.normalize == "mean" else self.scale * weights
