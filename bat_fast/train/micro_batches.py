"""Gradient accumulation: a batch in parts that go through the network one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from bat_fast.batch import Batch
from bat_fast.methods import Terms


def cut(batch: Batch, count: int, first: int = 0) -> list[Batch]:
    """``batch`` in ``count`` parts whose sizes differ by one at most; fewer where it has fewer images.

    A part takes every ``count``-th image: `bat_fast.data.ExtraData` puts its images last, and they belong
    into every part, as the statistics of batch norm are those of a part.

    Args:
        batch: the images of this process.
        count: of parts.
        first: place of the first image in the batch of all processes, which is what is cut.
    """
    count = min(count, len(batch.y))
    if count <= 1:
        return [batch]
    last = batch.x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    starts = [(k - first) % count for k in range(count)]
    return [
        Batch(batch.x[k::count].contiguous(memory_format=layout), batch.y[k::count], batch.index[k::count])
        for k in starts
    ]


def merge(parts: Sequence[Terms]) -> Terms:
    """What `cut` parts say together: the sum of their totals, means of the metrics, the rows of all."""
    if len(parts) == 1:
        return parts[0]
    sizes = [len(part.per_sample) for part in parts]
    metrics = {
        name: _sum(size * part.metrics[name] for size, part in zip(sizes, parts, strict=True)) / sum(sizes)
        for name in parts[0].metrics
    }
    logits = [part.logits for part in parts if part.logits is not None]
    return Terms(
        _sum(part.total for part in parts),
        _joined([part.per_sample for part in parts]),
        metrics,
        _joined(logits) if logits else None,
    )


def _joined(rows: Sequence[Tensor]) -> Tensor:
    """Rows [N, ...] in the order of the batch that `cut` divided."""
    whole = rows[0].new_empty((sum(map(len, rows)), *rows[0].shape[1:]))
    for k, part in enumerate(rows):
        whole[k :: len(rows)] = part
    return whole


def _sum(scalars: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(scalars)).sum()
