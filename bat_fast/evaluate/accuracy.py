"""Clean and robust accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bat_fast.attacks import Attack, report_labels
from bat_fast.batch import Batch


def evaluate(model: nn.Module, loader: Iterable[Batch], attack: Attack | None = None) -> dict[str, float]:
    """Accuracy of ``model`` in eval mode; modes are restored afterwards.

    Random starts depend on the attack's seed and on the sample only, so the result does not depend on
    the batch size. Counts are summed on the device and read once.

    Args:
        model: [N, C, H, W] pixels -> [N, K] logits.
        loader: yields batches on the model's device.
        attack: also measure the accuracy on its images; None measures clean accuracy only.

    Returns:
        ``clean_acc`` and, with an attack, ``robust_acc``, both in [0, 1]; ``n_examples``.

    Raises:
        ValueError: the loader yields no sample, or a label that is no class.
    """
    clean: list[Tensor] = []
    robust: list[Tensor] = []
    samples = 0
    with _eval_mode(model), torch.no_grad():
        for batch in loader:
            samples += len(batch.y)
            clean.append(_correct(model, batch.x, batch.y))
            if attack is not None:
                x_adv = attack(batch.x, batch.y, index=batch.index, draw=0)
                robust.append(_correct(model, x_adv, batch.y))
    if samples == 0:
        raise ValueError("loader: there is no sample to evaluate on")
    result = {"clean_acc": int(torch.stack(clean).sum()) / samples, "n_examples": samples}
    if attack is not None:
        result["robust_acc"] = int(torch.stack(robust).sum()) / samples
    report_labels(clean[0].device)  # reading the counts has waited for the last batch
    return result


def _correct(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """How many of ``x`` [N, C, H, W] are classified as ``y`` [N]: a scalar on the device."""
    return (model(x).argmax(1) == y).sum()


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
