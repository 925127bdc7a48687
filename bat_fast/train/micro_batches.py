"""Gradient accumulation: a batch in parts that go through the network one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from bat_fast.batch import Batch
from bat_fast.methods import Terms


def cut(batch: Batch, count: int) -> list[Batch]:
    """``batch`` in ``count`` parts whose sizes differ by one at most; fewer where it has fewer images.

    A part takes every ``count``-th image: `bat_fast.data.ExtraData` puts its images last, and they belong
    into every part, as the statistics of batch norm are those of a part.
    """
    count = min(count, len(batch.y))
    if count <= 1:
        return [batch]
    last = batch.x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return [
        Batch(batch.x[k::count].contiguous(memory_format=layout), batch.y[k::count], batch.index[k::count])
        for k in range(count)
    ]


def merge(parts: Sequence[Terms]) -> Terms:
    """What `cut` parts say together: the sum of their totals, and means over the samples of the rest."""
    if len(parts) == 1:
        return parts[0]
    sizes = [len(part.per_sample) for part in parts]
    per_sample = parts[0].per_sample.new_empty(sum(sizes))
    for k, part in enumerate(parts):
        per_sample[k :: len(parts)] = part.per_sample
    metrics = {
        name: _sum(size * part.metrics[name] for size, part in zip(sizes, parts, strict=True)) / sum(sizes)
        for name in parts[0].metrics
    }
    return Terms(_sum(part.total for part in parts), per_sample, metrics)


def _sum(scalars: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(scalars)).sum()
