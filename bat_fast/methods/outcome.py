"""From the logits of a batch to what a method reports."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from bat_fast.methods.base import Terms


def outcome(
    total: Tensor,
    logits: Tensor,
    target: Tensor,
    *,
    accuracy: str,
    fitted: Tensor | None = None,
    **metrics: Tensor,
) -> Terms:
    """The terms of a batch, with the loss and the accuracy on the images trained on.

    Args:
        total: the scalar that the weights descend.
        logits: [N, C], the model's answer to the images trained on, or attacked.
        target: [N] int64 classes.
        accuracy: name of the accuracy: ``robust_acc`` or ``clean_acc``.
        fitted: [N, C], the logits that the loss fits to the classes, where these are not ``logits``; their
            accuracy is ``clean_acc``.
        metrics: further scalars.

    Returns:
        Terms whose metrics are detached and still on the device.
    """
    answer = logits.detach()
    measured = {"loss": total, accuracy: (answer.argmax(1) == target).float().mean(), **metrics}
    if fitted is not None:
        measured["clean_acc"] = (fitted.detach().argmax(1) == target).float().mean()
    per_sample = F.cross_entropy(answer.float(), target, reduction="none")
    metrics = {name: value.detach() for name, value in measured.items()}
    return Terms(total, per_sample, metrics, logits if fitted is None else fitted)
