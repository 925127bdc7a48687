"""The range of every setting, in one table, and the units: pixels in [0, 1], parts of a run.

Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bat_fast.config import TrainConfig
from bat_fast.config.ball import L2_MOST, length_fault
from bat_fast.config.phases import problems_of_phases

PART_OF_RUN = "a fraction of the run in [0, 1], or epochs above 1"
"""Of a setting that is a fraction of the run, or a number of epochs where it is above 1."""
BALL = "pixels"
"""Of a length in pixels that are scaled to [0, 1]: at most 1 in linf, at most `L2_MOST` in l2."""

_SGD_RATE = 0.05  # from here on Adam diverges on every network of this family

LIMITS = {
    "epochs": "[1, inf)",
    "batch_size": "[1, inf)",
    "seed": "[0, inf)",
    "checkpoint_every": "[0, inf)",
    "checkpoint_keep": "[1, inf)",
    "data.workers": "[0, inf)",
    "data.augment.pad": "[0, inf)",
    "data.augment.cutout": "[0, inf)",
    "data.augment.jitter": "[0, 1]",
    "data.augment.rand_augment": "[0, inf)",
    "data.extra.share": "(0, 1)",
    "data.phases.ends": "[1, inf)",
    "data.phases.sizes": "[1, inf)",
    "data.phases.batches": "[1, inf)",
    "data.label_noise.rate": "[0, 1]",
    "data.label_noise.seed": "[0, inf)",
    "model.num_classes": "[2, inf)",
    "attack.eps": BALL,
    "attack.step_size": BALL,
    "attack.steps": "[0, inf)",
    "attack.clean_start": "[0, 1]",
    "attack.warmup": PART_OF_RUN,
    "attack.first_steps": "[0, inf)",
    "attack.late_start": PART_OF_RUN,
    "attack.late_eps": BALL,
    "attack.late_steps": "[0, inf)",
    "optim.lr": "(0, inf)",
    "optim.momentum": "[0, 1)",
    "optim.momentum_low": "[0, 1)",
    "optim.peak": "(0, 1)",
    "optim.beta2": "[0, 1)",
    "optim.weight_decay": "[0, 1]",
    "optim.milestones": PART_OF_RUN,
    "optim.gamma": "(0, 1]",
    "optim.factors": "[0, inf)",
    "optim.warmup": PART_OF_RUN,
    "optim.micro_batches": "[1, inf)",
    "optim.label_smoothing": "[0, 1)",
    "optim.clip": "(0, inf)",
    "optim.check_every": "[1, inf)",
    "optim.awp": "[0, 1]",
    "optim.awp_start": PART_OF_RUN,
    "optim.awp_steps": "[1, inf)",
    "optim.awp_below": "(0, inf)",
    "optim.average_decay": "[0, 1)",
    "optim.average_start": PART_OF_RUN,
    "eval.val_steps": "[0, inf)",
    "eval.test_steps": "[0, inf)",
    "eval.autoattack": "[0, inf)",
    "eval.step_size": BALL,
    "eval.batch_size": "[1, inf)",
    "eval.every": "[1, inf)",
    "eval.patience": "[0, inf)",
}
"""Setting -> interval of its numbers; None is allowed where the type has it."""


def allowed(name: str) -> str:
    """The range of setting ``name`` in words; empty where any value of its type will do."""
    limit = LIMITS.get(name, "")
    if limit == BALL:
        return f"{'>' if name.endswith('step_size') else '>='} 0, at most 1 in linf and {L2_MOST:g} in l2"
    return limit if limit == PART_OF_RUN else _words(limit) if limit else ""


def value_of(config: Any, name: str) -> Any:
    """The value of the setting ``name``, such as ``optim.lr``."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


def problems(config: TrainConfig) -> Iterator[tuple[str, str]]:
    """The settings that are out of their range, or do not fit each other: each by its name, and one line."""
    for name, limit in LIMITS.items():
        value = value_of(config, name)
        for number in value if isinstance(value, tuple) else [value]:
            fault = None if number is None else _fault(config, name, limit, number)
            if fault is not None:
                yield name, f"{name} must be {fault}"
    attack, optim = config.attack, config.optim
    if attack.first_steps is not None and not attack.warmup:
        yield (
            "attack.first_steps",
            "attack.first_steps needs attack.warmup, the part of the run that it rises over",
        )
    if attack.late_start is None and (attack.late_eps is not None or attack.late_steps is not None):
        yield "attack.late_start", "attack.late_eps and late_steps need attack.late_start, where they begin"
    if attack.late_start is not None and attack.late_eps is None and attack.late_steps is None:
        yield "attack.late_start", "attack.late_start needs attack.late_eps or late_steps, which begin there"
    if optim.micro_batches > config.batch_size:
        yield (
            "optim.micro_batches",
            f"optim.micro_batches, the number of parts of a batch, must be at most batch_size = "
            f"{config.batch_size}, got {optim.micro_batches}",
        )
    for name, why in (
        ("sync_bn", "which takes the place of batch norm while the model runs"),
        ("grad_checkpointing", "whose blocks run again; to save memory use optim.micro_batches"),
    ):
        if optim.compile and getattr(optim, name):
            yield "optim.compile", f"optim.compile does not go with optim.{name}, {why}"
    if optim.name != "sgd" and optim.lr >= _SGD_RATE:
        yield "optim.lr", f"optim.lr is {optim.lr:g}, which is for sgd; {optim.name} needs about 0.001"
    if optim.nesterov and not (optim.name == "sgd" and optim.momentum):
        yield "optim.nesterov", "optim.nesterov needs optim.name sgd and a momentum above 0"
    yield from _problems_of_published(config)
    yield from problems_of_phases(config)
    if 0 < config.eval.patience < config.eval.every:
        yield (
            "eval.patience",
            f"eval.patience is in epochs and must be at least eval.every = {config.eval.every}, got "
            f"{config.eval.patience}",
        )
    if "name" not in config.method:
        yield "method", "method.name is missing: the method that trains"


def _problems_of_published(config: TrainConfig) -> Iterator[tuple[str, str]]:
    """Those of the settings that repeat what published code does."""
    attack, optim, choose = config.attack, config.optim, config.eval.choose
    if attack.bn_updates and attack.bn_mode != "train":
        yield "attack.bn_updates", "attack.bn_updates counts passes in train mode: set attack.bn_mode train"
    if attack.bn_updates and attack.engine not in ("auto", "eager"):
        yield "attack.bn_updates", f"attack.bn_updates needs attack.engine auto or eager, got {attack.engine}"
    if optim.momentum_low is not None and not (optim.name == "sgd" and optim.schedule == "cyclic"):
        yield "optim.momentum_low", "optim.momentum_low needs optim.name sgd and optim.schedule cyclic"
    if optim.momentum_low is not None and optim.momentum_low > optim.momentum:
        yield (
            "optim.momentum_low",
            f"optim.momentum_low must be at most optim.momentum = {optim.momentum:g}, got "
            f"{optim.momentum_low:g}",
        )
    if config.model.normalize == "none" and config.model.pretrained:
        yield "model.normalize", "model.normalize none: pretrained weights need the pixels that they know"
    if choose != "val" and float(config.data.label_noise.rate):
        yield (
            "eval.choose",
            f"eval.choose {choose} trains on the images that validate, whose labels data.label_noise leaves "
            "alone: use eval.choose val",
        )
    if choose == "last" and config.eval.patience:
        yield "eval.choose", "eval.choose last takes the last epoch: eval.patience does not go with it"


def check(config: TrainConfig) -> None:
    """Raise ValueError about the first of the `problems`."""
    for _, message in problems(config):
        raise ValueError(message)


def check_images(config: TrainConfig, size: int) -> None:
    """Raise ValueError where the augmentation does not fit images of ``size`` pixels."""
    augment = config.data.augment
    for name, value, most in (("pad", augment.pad, size - 1), ("cutout", augment.cutout, size)):
        if value > most:
            raise ValueError(
                f"data.augment.{name} is in pixels and must be at most {most}, because the images have "
                f"{size}x{size}, got {value}"
            )


def _fault(config: TrainConfig, name: str, limit: str, value: float) -> str | None:
    """What ``value`` must be, what it is, and what to write instead; None where it is right."""
    if limit == BALL:
        return _ball_fault(config, name, value)
    if limit == PART_OF_RUN:
        if 0 <= value <= max(1, config.epochs):
            return None
        return f"a fraction of the run in [0, 1], or epochs up to {config.epochs}, got {value:g}"
    low, high = _ends(limit)
    inside = low <= value <= high and math.isfinite(value)
    if inside and not (value == low and limit[0] == "(") and not (value == high and limit[-1] == ")"):
        return None
    return f"{_words(limit)}, got {value}"


def _ball_fault(config: TrainConfig, name: str, value: float) -> str | None:
    is_step = name.endswith("step_size")
    if is_step and value == 0:
        return "> 0, got 0; leave it out for a quarter of the radius"
    return length_fault(config.attack.norm, value, positive=is_step)


def _ends(limit: str) -> tuple[float, float]:
    low, high = limit[1:-1].split(",")
    return float(low), float(high)


def _words(limit: str) -> str:
    low, high = _ends(limit)
    if math.isfinite(high):
        return f"in {limit}"
    return f"> {low:g}" if limit[0] == "(" else f"at least {low:g}"


def in_fractions(config: TrainConfig) -> TrainConfig:
    """``config`` with fractions of the run in place of epochs, where it says when something happens.

    Such a setting is a fraction in [0, 1], or a number of epochs above 1. The run folder records it as
    written; what trains reads fractions.
    """

    def part(value: float) -> float:
        return value / config.epochs if value > 1 else value

    attack, optim = config.attack, config.optim
    return replace(
        config,
        attack=replace(
            attack,
            warmup=part(attack.warmup),
            late_start=None if attack.late_start is None else part(attack.late_start),
        ),
        optim=replace(
            optim,
            milestones=tuple(map(part, optim.milestones)),
            warmup=part(optim.warmup),
            awp_start=part(optim.awp_start),
            average_start=part(optim.average_start),
        ),
    )
