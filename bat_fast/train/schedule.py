"""The learning rate of a step."""

from __future__ import annotations

import math

from bat_fast.config import OptimConfig

_PEAK = 0.4


def learning_rate(optim: OptimConfig, step: int, total_steps: int) -> float:
    """The learning rate of ``step`` (0-based) in a run of ``total_steps``.

    A function of its arguments alone, so a resumed run needs no scheduler state. ``milestones`` and
    ``warmup`` are fractions of the run here (`bat_fast.config.limits.in_fractions`); ``cyclic`` peaks at 40%
    of it, as in Wong et al. 2020.
    """
    progress = (step + 0.5) / total_steps
    rise = min(1.0, (step + 1) / (optim.warmup * total_steps)) if optim.warmup > 0 else 1.0
    return optim.lr * rise * _factor(optim, progress)


def _factor(optim: OptimConfig, progress: float) -> float:
    if optim.schedule == "constant":
        return 1.0
    if optim.schedule == "multistep":
        return optim.gamma ** sum(progress >= milestone for milestone in optim.milestones)
    if optim.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return progress / _PEAK if progress < _PEAK else (1.0 - progress) / (1.0 - _PEAK)
