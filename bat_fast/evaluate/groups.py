"""Images by groups: the first ones, those of one process, and groups that are large enough."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from bat_fast.batch import Batch
from bat_fast.world.ranks import World


def first(loader: Iterable[Batch], n: int | None) -> Iterator[Batch]:
    """The batches of ``loader`` up to the ``n``-th image."""
    left = n
    for batch in loader:
        if left is None:
            yield batch
            continue
        yield Batch(*(tensor[:left] for tensor in batch))
        left -= min(left, len(batch.y))
        if not left:
            return


def joined(loader: Iterable[Batch], least: int | None) -> Iterator[Batch]:
    """Batches of at least ``least`` images but for the last one; None joins all."""
    kept: list[Batch] = []
    for batch in loader:
        kept.append(batch)
        if least is not None and sum(len(part.y) for part in kept) >= least:
            yield together(kept)
            kept = []
    if kept:
        yield together(kept)


def shared(loader: Iterable[Batch], world: World) -> Iterator[Batch]:
    """Of all images every ``world.size``-th, from that of number ``world.rank``."""
    seen = 0
    for batch in loader:
        mine = (torch.arange(seen, seen + len(batch.y)) % world.size == world.rank).to(batch.y.device)
        seen += len(batch.y)
        if bool(mine.any()):
            yield Batch(*(tensor[mine] for tensor in batch)) if world.size > 1 else batch


class Sample:
    """The first images of a stream, for a look at them afterwards.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._parts: list[Batch] = []

    def of(self, loader: Iterable[Batch]) -> Iterator[Batch]:
        """``loader`` as it is."""
        for batch in loader:
            if sum(len(part.y) for part in self._parts) < self._count:
                self._parts.append(Batch(*(tensor[: self._count] for tensor in batch)))
            yield batch

    @property
    def batch(self) -> Batch | None:
        """What it has seen; None before there was an image."""
        return Batch(*(t[: self._count] for t in together(self._parts))) if self._parts else None


def together(batches: list[Batch]) -> Batch:
    """All images of several batches in one."""
    return Batch(*(torch.cat(tensors) for tensors in zip(*batches, strict=True)))
