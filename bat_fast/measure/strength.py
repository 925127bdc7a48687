"""How strong an attack is, however it ran: the float32 model judges the images that it found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast._logits import missed
from bat_fast.batch import Batch


class Strength(NamedTuple):
    """What the float32 model in eval mode makes of attacked images."""

    loss: float
    """Mean cross-entropy."""
    robust_acc: float
    """Accuracy."""

    def beside(self, plain: Strength, clean: Strength) -> dict[str, float | None]:
        """Both, and the differences from the attack ``plain``: ``loss_change``, the same as a share of what
        ``plain`` gains over the clean images (``gain_change``; None where it gains nothing), and
        ``robust_change``."""
        change, gain = self.loss - plain.loss, plain.loss - clean.loss
        return self._asdict() | {
            "loss_change": change,
            "gain_change": change / abs(gain) if gain else None,
            "robust_change": self.robust_acc - plain.robust_acc,
        }


def strength(
    model: nn.Module, batches: Sequence[Batch], attack: Callable[[Batch], Tensor] | None = None
) -> Strength:
    """The strength of ``attack`` on all batches; without one, that of the images as they are."""
    loss, right = 0.0, 0
    for batch in batches:
        images = batch.x if attack is None else attack(batch)
        with torch.no_grad():
            logits = model(images.contiguous())
            loss += float(F.cross_entropy(logits, batch.y, reduction="sum"))
            right += int((~missed(logits, batch.y)).sum())
    count = sum(len(batch.y) for batch in batches)
    return Strength(loss / count, right / count)
