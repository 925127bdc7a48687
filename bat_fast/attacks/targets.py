"""Classes for a targeted attack to move towards."""

from __future__ import annotations

import torch
from torch import Tensor

from bat_fast import ops
from bat_fast._random import TARGET_SEED


def random_targets(
    y: Tensor,
    index: Tensor,
    num_classes: int,
    *,
    seed: int = 0,
    draw: int = 0,
) -> Tensor:
    """A class other than the true one for each sample, which depends on (seed, id, draw) alone.

    Args:
        y: [N] int64 true classes.
        index: [N] int64 data set ids.
        num_classes: number of classes.
        seed, draw: which random numbers of these samples.

    Returns:
        [N] int64.

    Raises:
        ValueError: fewer than two classes.
    """
    if num_classes < 2:
        raise ValueError(f"attack.targets: {num_classes} class leaves no other one to move towards")
    half = torch.full((len(y), 1), 0.5, device=y.device)
    # The generator of the random starts, with another seed: one number in [0, 1] per sample.
    unit = ops.random_start(half, eps=0.5, seed=seed ^ TARGET_SEED, index=index, draw=draw)
    offset = (unit.flatten() * (num_classes - 1)).long().clamp_(max=num_classes - 2)
    return (y + 1 + offset) % num_classes
