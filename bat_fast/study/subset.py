"""Which samples train which model of a study."""

from __future__ import annotations

import torch
from torch import Tensor

from bat_fast._random import generator, seed_of


def subset(count: int, ratio: float, seed: int, job: int) -> Tensor:
    """The samples of model ``job``, [count] bool: exactly ``round(ratio * count)``, without replacement.

    It depends on the arguments alone, so that any process may train any model, and more models may be added.

    Args:
        count: number of training samples.
        ratio: share of them that trains a model, in (0, 1).
        seed: of the study.
        job: number of the model, from 0.

    Raises:
        ValueError: ``ratio`` leaves no sample in, or none out.
    """
    chosen = round(ratio * count)
    if not 0 < chosen < count:
        raise ValueError(
            f"ratio must leave samples in and out of a subset of {count}, got {ratio:g}: 0.7 is usual"
        )
    mask = torch.zeros(count, dtype=torch.bool)
    mask[torch.randperm(count, generator=generator("study subset", seed, job))[:chosen]] = True
    return mask


def model_seed(seed: int, job: int) -> int:
    """The seed of weights, order and random starts of model ``job``."""
    return seed_of("study model", seed, job)
