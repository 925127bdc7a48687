"""Clean and robust accuracy."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from bat_fast._logits import eval_mode, logits_of, missed
from bat_fast.attacks import Attack, report_labels
from bat_fast.attacks.modules import as_module
from bat_fast.batch import Batch
from bat_fast.world.ranks import ALONE, World


def evaluate(
    model: nn.Module | Callable[[Tensor], Any],
    loader: Iterable[Any],
    attack: Attack | None = None,
    world: World = ALONE,
) -> dict[str, float]:
    """Accuracy of ``model`` in eval mode; modes are restored afterwards.

    Random starts depend on the attack's seed and on the sample only, so the result does not depend on
    the batch size. Counts are summed on the device and read once.

    Args:
        model: [N, C, H, W] pixels -> [N, K] logits, or a tuple or an object that holds them; a module or a
            function.
        loader: yields batches on the model's device, or pairs (images, labels), as a DataLoader does. Pairs
            are numbered in their order, so there the random starts depend on it.
        attack: also measure the accuracy on its images; None measures clean accuracy only.
        world: the processes of which each has other images in its loader; what is counted is added up.

    Returns:
        ``clean_acc`` and, with an attack, ``robust_acc``, both in [0, 1]; ``n_examples``.

    Raises:
        ValueError: the loader yields no sample, or a label that is no class. TypeError: it yields something
            else than pairs.
    """
    model = as_module(model)
    found: list[Tensor] = []
    samples = 0
    with eval_mode(model), torch.no_grad():
        for batch in batches_of(model, loader):
            samples += len(batch.y)
            found.append(torch.stack([_counted(logits, batch.y) for logits in passes(model, batch, attack)]))
    if samples == 0:
        raise ValueError("loader: there is no sample to evaluate on")
    samples = sum(world.sizes(samples))
    total = torch.stack(found).sum(0)
    world.sum_([total])
    result: dict[str, float] = {"n_examples": samples}
    kinds = (("clean_acc", "images"), ("robust_acc", "attacked images"))
    for (name, what), (right, nan) in zip(kinds, total.tolist(), strict=False):
        result[name] = right / samples
        if nan:
            warnings.warn(
                f"the model gives NaN for {nan} of {samples} {what}, which count as wrong", stacklevel=2
            )
    report_labels(total.device)  # reading the counts has waited for the last batch
    return result


def passes(model: nn.Module, batch: Batch, attack: Attack | None) -> Iterator[Tensor]:
    """The logits [N, K] of the images of a batch and, with an attack, of what it makes of them."""
    yield logits_of(model(batch.x), len(batch.y))
    if attack is not None:
        x_adv = attack(batch.x, batch.y, index=batch.index, draw=0)
        yield logits_of(model(x_adv), len(batch.y))


def _counted(logits: Tensor, y: Tensor) -> Tensor:
    """How many images are classified as ``y`` [N], and how many get NaN instead."""
    return torch.stack([(~missed(logits, y)).sum(), logits.isnan().any(1).sum()])


def batches_of(model: nn.Module, loader: Iterable[Any]) -> Iterator[Batch]:
    """``loader`` as it is, but pairs are numbered in their order and put on the device of the model."""
    device = next((part.device for part in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    count = 0
    for batch in loader:
        if isinstance(batch, Batch):
            yield batch
            continue
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            raise TypeError(f"loader must yield pairs (images, labels) or Batch, got {type(batch).__name__}")
        x, y = batch[0].to(device), batch[1].to(device)
        yield Batch(x, y, torch.arange(count, count + len(y), device=device))
        count += len(y)
