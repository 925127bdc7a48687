"""KD-SWA: smoothing by two teachers and an average of weights (Chen et al. 2021, openreview qZzy5urZw9)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast.batch import Batch
from bat_fast.methods.base import Method, Terms
from bat_fast.methods.options import at_least
from bat_fast.methods.outcome import outcome


@dataclass(kw_only=True)
class KdSwa(Method):
    """PGD-AT that also learns what a standard and a robust model answer to its adversarial images.

    With the helpers g and r, which stay as they are, and the temperature T::

        loss = hard mean_i CE(z_i, y_i) + standard T^2 mean_i CE(z_i / T, softmax(g(x'_i) / T))
               + robust T^2 mean_i CE(z_i / T, softmax(r(x'_i) / T)),   z_i = f(x'_i)

    The average of the weights is that of the run (``optim.average: swa`` with ``average_start``). r is a
    run of PGD-AT of the same network: self-training. Source of the formulas:
    VITA-Group/Alleviate-Robust-Overfitting, utils.py, ``train_epoch_adv_dual_teacher``, which attacks in
    train mode.
    """

    helper: str = ""
    """Run folder (or model.safetensors) of g, trained with ``method: standard``."""
    robust_helper: str = ""
    """The same of r, trained with ``method: pgd_at``."""
    hard: float = 0.3
    """Weight of the labels, >= 0."""
    standard: float = 0.1
    """Weight of the answers of g, >= 0."""
    robust: float = 0.6
    """Weight of the answers of r, >= 0."""
    temperature: float = 2.0
    """T, > 0."""

    def __post_init__(self) -> None:
        for name in ("hard", "standard", "robust"):
            at_least(f"kd_swa.{name}", getattr(self, name), 0.0)
        at_least("kd_swa.temperature", self.temperature, 0.0, open_end=True)
        self._helpers: list[nn.Module] = []

    def consult(self, model: nn.Module) -> None:
        """Take g, and in a second call r."""
        self._helpers.append(model)

    def __call__(self, model: nn.Module, batch: Batch, x_adv: Tensor, epoch: int) -> Terms:
        """The loss of one batch; metrics ``loss``, ``taught`` (by both helpers) and ``robust_acc``.

        Raises:
            RuntimeError: there are no two helpers.
        """
        if len(self._helpers) != 2:
            raise RuntimeError("kd_swa: call consult(model) with both helpers before the first batch")
        logits = model(x_adv)
        soft = (logits / self.temperature).log_softmax(1)
        taught = logits.new_zeros(())
        for helper, weight in zip(self._helpers, (self.standard, self.robust), strict=True):
            with torch.no_grad():
                answer = (helper(x_adv) / self.temperature).softmax(1).to(logits.dtype)
            taught = taught - weight * self.temperature**2 * (answer * soft).sum(1).mean()
        loss = self.hard * F.cross_entropy(logits, batch.y) + taught
        return outcome(loss, logits, batch.y, accuracy="robust_acc", taught=taught)
