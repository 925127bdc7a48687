"""The alarm for catastrophic overfitting of single-step training (Wong et al. 2020, arXiv:2001.03994)."""

from __future__ import annotations

from typing import Any

from torch import nn

from bat_fast.attacks import PGD
from bat_fast.batch import Batch
from bat_fast.evaluate import evaluate

_GAP = 0.15  # in accuracy: less than that is noise in a batch of a few hundred images


class CollapseAlarm:
    """Compares, on one held-out batch, the accuracy under one FGSM step with that under PGD.

    A model that has learnt to fool the single step it trains with withstands FGSM and falls to PGD. The
    alarm is raised when PGD accuracy is below half of FGSM accuracy, and the two are 15 points apart.

    Args:
        batch: held-out images on the device of the model.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.raised = False

    def describe(self, row: dict[str, Any]) -> str:
        """The collapse that an epoch ended in, in one line."""
        return (
            f"catastrophic overfitting in epoch {row['epoch']}: {row['val/fgsm_acc']:.1%} of the held-out "
            "images withstand FGSM, less than half of that PGD"
        )

    def measure(self, model: nn.Module, attack: PGD) -> dict[str, float]:
        """``val/fgsm_acc`` and ``val/collapsed`` (1 or 0) of ``model``.

        ``attack`` is that of the evaluation; FGSM has its ball and one step as long as the radius.
        """
        fgsm = PGD(model, eps=attack.eps, step_size=attack.eps, steps=1, norm=attack.norm, random_start=False)
        pgd_acc = evaluate(model, [self.batch], attack)["robust_acc"]
        fgsm_acc = evaluate(model, [self.batch], fgsm)["robust_acc"]
        self.raised = pgd_acc < fgsm_acc / 2 and fgsm_acc - pgd_acc >= _GAP
        return {"val/fgsm_acc": fgsm_acc, "val/collapsed": float(self.raised)}
