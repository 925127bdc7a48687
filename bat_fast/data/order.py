"""The order of an epoch, and the share that each rank has of it."""

from __future__ import annotations

import torch
from torch import Tensor

from bat_fast._random import generator


def epoch_order(count: int, seed: int, epoch: int, *more: str) -> Tensor:
    """A permutation [count] int64 that depends on (seed, epoch) alone, and on what ``more`` says."""
    return torch.randperm(count, generator=generator(seed, epoch, *more))


def shares(order: Tensor, batch_size: int, rank: int, world_size: int, least: int = 1) -> list[Tensor]:
    """What ``rank`` has of every batch: as many on every rank, and together each sample exactly once.

    A batch takes ``batch_size`` samples in the common order, and each rank its part of them, as even as can
    be, in the order of the ranks. Less than ``least`` samples for each rank at the end join the batch before.

    Args:
        order: [M] int64, the same on all ranks, with M >= world_size.
        batch_size: samples in a batch of all ranks together, >= world_size.
        least: samples of a rank in its last batch: 1, or 2 where one alone has no statistics.
    """
    steps = list(order.split(batch_size))
    if len(steps) > 1 and len(steps[-1]) < least * world_size:
        steps[-2:] = [torch.cat(steps[-2:])]
    return [step.tensor_split(world_size)[rank] for step in steps]


def count_steps(count: int, batch_size: int, world_size: int, least: int = 1) -> int:
    """How many batches `shares` gives for ``count`` samples."""
    steps, rest = divmod(count, batch_size)
    return max(1, steps + (rest >= least * world_size))


def stratified(labels: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Divide the samples at random into a rest and ``count`` held out, the classes in equal shares.

    Args:
        labels: [M] int64.
        count: in [0, M).
        seed: any integer.

    Returns:
        The places of both parts in ``labels``, each in rising order.
    """
    if not 0 <= count < len(labels):
        raise ValueError(
            f"data.options.val must be in [0, {len(labels)}), got {count}: so many of the {len(labels)} "
            f"training images shall validate; take fewer, --data.options.val {len(labels) // 10} say"
        )
    places = torch.randperm(len(labels), generator=generator("split", seed))
    places = places[labels[places].argsort(stable=True)]  # by class, in random order within a class
    sizes = labels.bincount()
    first = (sizes.cumsum(0) - sizes)[labels[places]]
    # Each sample's rank within its class, as a share of the class: the smallest are an equal share of all.
    depth = (torch.arange(len(labels)) - first + 0.5) / sizes[labels[places]]
    places = places[depth.argsort(stable=True)]
    return places[count:].sort().values, places[:count].sort().values
