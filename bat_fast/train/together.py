"""What the processes of a run look at before and while they train: that they do the same."""

from __future__ import annotations

from math import inf, isnan
from typing import Any

import torch
from torch import nn

from bat_fast.config import TrainConfig
from bat_fast.runs.plain import flat, plain
from bat_fast.world.ranks import World

_OWN = ("data.root", "data.workers")  # may differ from machine to machine
_DRIFT = 1e-4  # between sums of weights: kernels of two kinds of GPU may round differently


def check_alike(world: World, config: TrainConfig, data: dict[str, Any]) -> None:
    """Raise ValueError, on every process, where one has other settings or other data than the first.

    Args:
        world: the processes.
        config: of this one.
        data: what `bat_fast.train.resume.identity` says of its data.
    """
    mine = {"settings": {k: v for k, v in flat(plain(config)).items() if k not in _OWN}, "data": data}
    every = world.objects(mine)
    for rank, other in enumerate(every):
        for what, expected in every[0].items():
            for key in (key for key in expected | other[what] if expected.get(key) != other[what].get(key)):
                raise ValueError(
                    f"the processes of a run must have the same {what}: {key} is {expected.get(key)!r} on "
                    f"rank 0 and {other[what].get(key)!r} on rank {rank}"
                )


def check_same_weights(world: World, model: nn.Module) -> None:
    """Raise RuntimeError where a process has other weights or running statistics than the first."""
    if world.size == 1:
        return
    tensors = [tensor.detach().double() for tensor in model.state_dict().values()]
    sizes = [tensor.abs().sum() for tensor in tensors]
    first, *others = world.objects(torch.stack(sizes).tolist() if sizes else [])
    for rank, found in enumerate(others, 1):
        for name, one, two in zip(model.state_dict(), first, found, strict=True):
            if not _alike(one, two):
                raise RuntimeError(
                    f"{name} of the model is another on rank {rank} than on rank 0: does the model change "
                    "itself in training, other than by the gradient and by batch norm?"
                )


def _alike(one: float, two: float) -> bool:
    """Infinite is what a mask of attention may be; of a NaN `bat_fast.train.health` speaks."""
    return one == two or (isnan(one) and isnan(two)) or abs(one - two) <= _DRIFT * abs(one) < inf
