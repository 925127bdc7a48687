"""The learning rate of a step, and the strength of its attack."""

from __future__ import annotations

import math
from bisect import bisect_right

from bat_fast.config import AttackConfig, OptimConfig


def learning_rate(optim: OptimConfig, step: int, total_steps: int) -> float:
    """The learning rate of ``step`` (0-based) in a run of ``total_steps``.

    A function of its arguments alone, so a resumed run needs no scheduler state. ``milestones`` and
    ``warmup`` are fractions of the run here (`bat_fast.config.limits.in_fractions`); ``cyclic`` peaks at
    ``peak`` of it: 0.5 in the CIFAR-10 scripts of Wong et al. 2020, 0.4 in their MNIST script.
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
    if optim.schedule == "linear":
        return _between(optim, progress)
    peak = optim.peak
    return progress / peak if progress < peak else (1.0 - progress) / (1.0 - peak)


def _between(optim: OptimConfig, progress: float) -> float:
    """The point at ``progress`` of the line through (0, 0) and (milestone, factor); the last one stays."""
    marks, values = (0.0, *optim.milestones), (0.0, *optim.factors)
    after = bisect_right(marks, progress)
    if after == len(marks):
        return values[-1]
    low, high = marks[after - 1], marks[after]
    return values[after - 1] + (values[after] - values[after - 1]) * (progress - low) / (high - low)


def momentum(optim: OptimConfig, step: int, total_steps: int) -> float:
    """The momentum of ``step``, as `learning_rate` counts it: with ``momentum_low`` it mirrors ``cyclic``."""
    if optim.momentum_low is None:
        return optim.momentum
    return optim.momentum - (optim.momentum - optim.momentum_low) * _factor(optim, (step + 0.5) / total_steps)


def attack_strength(
    attack: AttackConfig, progress: float, eps: float, step_size: float, steps: int
) -> tuple[float, float, int]:
    """Radius, step and number of steps where ``progress`` in [0, 1) of the run is done.

    Args:
        attack: its curriculum, with fractions of the run (`bat_fast.config.limits.in_fractions`).
        progress: the part of the run that is done.
        eps: radius of the whole attack, in pixels in [0, 1].
        step_size: its step, likewise.
        steps: its number of steps.
    """
    if attack.late_start is not None and progress >= attack.late_start:
        eps = eps if attack.late_eps is None else float(attack.late_eps)
        steps = steps if attack.late_steps is None else attack.late_steps
    ramp = min(1.0, progress / attack.warmup) if attack.warmup else 1.0
    first = steps if attack.first_steps is None else attack.first_steps
    return ramp * eps, ramp * step_size, round(first + ramp * (steps - first))
