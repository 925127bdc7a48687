"""ReBAT: rebalanced adversarial training (Wang et al. 2023, arXiv:2310.19360)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast import ops
from bat_fast._logits import eval_mode
from bat_fast.batch import Batch
from bat_fast.methods.base import Method, Terms
from bat_fast.methods.options import at_least
from bat_fast.methods.outcome import outcome


@dataclass(kw_only=True)
class Rebat(Method):
    """PGD-AT that stays near the average of its own weights, so that a late small rate does not memorise.

    With ``g``, the model whose weights are the average of those of this run (``optim.average: ema``)::

        loss = mean_i CE(f(x'_i), y_i) + beta mean_i KL(softmax g(x'_i) || softmax f(x'_i))

    The KL begins with the second step of the epoch ``start``, in which the average has to begin too
    (``optim.average_start``). g carries no gradient and answers in eval mode. Beside it the rate drops by
    little (``optim.gamma: 0.6667``); ReBAT++ has 0.5882, and a stronger attack from the first drop on
    (``attack.late_start``). Source: PKU-ML/ReBAT, train_cifar_wa.py:255-313, where g is in train mode during
    the first of these epochs, and the KL begins with its first step.
    """

    beta: float = 1.0
    """Weight of the KL, >= 0."""
    start: int = 105
    """Epoch, counted from 0, in which the average and the KL begin."""

    def __post_init__(self) -> None:
        at_least("rebat.beta", self.beta, 0.0)
        at_least("rebat.start", self.start, 0)
        self._average: nn.Module | None = None
        self._count: Tensor | None = None

    def follow(self, average: nn.Module | None, count: Tensor | None) -> None:
        """Take the average.

        Raises:
            ValueError: the run has none.
        """
        if average is None:
            raise ValueError("rebat needs an average of the weights: set optim.average ema, average_start")
        self._average, self._count = average, count

    def __call__(self, model: nn.Module, batch: Batch, x_adv: Tensor, epoch: int) -> Terms:
        """The loss of one batch; metrics ``loss``, ``kl`` and ``robust_acc``."""
        logits = model(x_adv)
        loss, kl = F.cross_entropy(logits, batch.y), logits.new_zeros(())
        if self.beta and epoch >= self.start:
            kl = self._divergence(logits, x_adv.detach())
            loss = loss + self.beta * kl
        return outcome(loss, logits, batch.y, accuracy="robust_acc", kl=kl)

    def _divergence(self, logits: Tensor, x_adv: Tensor) -> Tensor:
        if self._average is None or self._count is None:
            raise RuntimeError("rebat: call follow(average, count) before the first batch")
        with torch.no_grad(), eval_mode(self._average):
            answer = self._average(x_adv)
        begun = (self._count > 0).to(logits.dtype)  # not read, for which a GPU would wait
        kl, _ = ops.kl_loss(answer.to(logits.dtype), logits)
        return begun * kl
