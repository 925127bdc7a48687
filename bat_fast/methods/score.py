"""SCORE: TRADES with squared errors of probabilities (Pang et al. 2022, arXiv:2202.10103)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast.attacks.loss import AttackLoss
from bat_fast.batch import Batch
from bat_fast.methods.base import Method, Terms
from bat_fast.methods.options import at_least
from bat_fast.methods.outcome import outcome


@dataclass(frozen=True, kw_only=True)
class Score(Method):
    """A distance in place of a divergence, so that robustness and accuracy need not contradict::

        p = softmax f(x),  p' = softmax f(x'),  t = (1 - C s / (C - 1)) onehot(y) + s / (C - 1)
        loss = mean_i ||p_i - t_i||^2 + beta mean_i ||p'_i - p_i||^2

    and ``x'`` climbs ``||p' - p||^2`` away from the answer to the clean images. Source of the formulas:
    P2333/SCORE, core/utils/trades.py, ``trades_loss_LSE``; it attacks with the statistics of the batch, from
    ``x + U(-eps, eps)`` cut to [0, 1].
    """

    beta: float = 4.0
    """Weight of the distance between the answers, >= 0; 4 and 3 in the published commands."""
    smoothing: float = 0.0
    """s, the probability that the other classes have together, in [0, 1)."""

    def __post_init__(self) -> None:
        at_least("score.beta", self.beta, 0.0)
        at_least("score.smoothing", self.smoothing, 0.0)
        if self.smoothing >= 1:
            raise ValueError(f"score.smoothing must be below 1, got {self.smoothing}")

    def attack_options(self, attack: Mapping[str, Any]) -> dict[str, Any]:
        """No CUDA graph: the loss of each batch holds the answers to its own clean images."""
        may_capture = attack["engine"] in ("auto", "graph") and not attack["bn_updates"]
        return {"engine": "frozen"} if may_capture else {}

    def attack_loss(self, model: nn.Module, batch: Batch, epoch: int) -> AttackLoss:
        """The distance from the attacked model's answer to the clean images."""
        clean = model(batch.x).softmax(1)

        def away(logits: Tensor, target: Tensor) -> Tensor:
            return (logits.softmax(1) - clean.to(logits.dtype)).square().sum(1)

        return AttackLoss(away)

    def __call__(self, model: nn.Module, batch: Batch, x_adv: Tensor, epoch: int) -> Terms:
        """The loss of one batch; metrics ``loss``, ``distance``, ``robust_acc`` and ``clean_acc``."""
        clean, adv = model(batch.x), model(x_adv)
        p, classes = clean.softmax(1), clean.shape[1]
        share = self.smoothing / (classes - 1)
        target = (1 - classes * share) * F.one_hot(batch.y, classes).to(p.dtype) + share
        distance = (adv.softmax(1) - p).square().sum(1).mean()
        loss = (p - target).square().sum(1).mean() + self.beta * distance
        return outcome(loss, adv, batch.y, accuracy="robust_acc", fitted=clean, distance=distance)
