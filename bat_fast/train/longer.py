"""More epochs for a run that has begun: allowed where what is done would have been the same."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import NoReturn

from bat_fast.config import OptimConfig, TrainConfig
from bat_fast.config.limits import in_fractions
from bat_fast.train.schedule import learning_rate

_LOOKED_AT = 1000  # steps: rates are smooth, and change at epochs


def check_longer(
    config: TrainConfig, before: int, done: int, steps: int, folder: Path, *, stopped: bool = False
) -> None:
    """Raise ValueError unless the epochs that are done belong to a run of ``config.epochs`` too.

    Args:
        config: as it is written, with the new number of epochs.
        before: number of epochs that the run had.
        done: epochs that it has trained, the one that was interrupted included.
        steps: in an epoch.
        folder: of the run, for the message.
        stopped: whether it ended before its last epoch.
    """
    if stopped:
        raise ValueError(
            f"cannot resume {folder} with {config.epochs} epochs: it has ended by itself after {done} "
            f"(eval.patience, or a collapse); begin another run with these weights: --model.init {folder}"
        )
    if config.epochs < done:
        raise ValueError(f"cannot resume {folder}: epochs must be at least {done}, which are trained already")
    old, new = (in_fractions(replace(config, epochs=epochs)) for epochs in (before, config.epochs))
    total = done * steps
    for number in range(0, total, max(1, total // _LOOKED_AT)):
        if _rate(old.optim, number, before * steps) != _rate(new.optim, number, config.epochs * steps):
            _refuse(config, before, folder, f"the learning rate (optim.schedule {config.optim.schedule})")
    used = {
        "optim.awp_start": config.optim.awp > 0,
        "optim.average_start": config.optim.average != "none",
        "attack.late_start": config.attack.late_start is not None,
    }
    for name in (name for name, is_used in used.items() if is_used):
        here, there = (attrgetter(name)(laid_out) for laid_out in (old, new))
        if any((epoch / before >= here) != (epoch / config.epochs >= there) for epoch in range(done)):
            _refuse(config, before, folder, name)
    for epoch in range(done) if config.attack.warmup else ():
        if _ramp(old, epoch) != _ramp(new, epoch):
            _refuse(config, before, folder, "attack.warmup")


def _rate(optim: OptimConfig, number: int, total: int) -> float:
    return round(learning_rate(optim, number, total), 12)


def _ramp(config: TrainConfig, epoch: int) -> float:
    return round(min(1.0, epoch / config.epochs / config.attack.warmup), 9)


def _refuse(config: TrainConfig, before: int, folder: Path, what: str) -> NoReturn:
    raise ValueError(
        f"cannot resume {folder} with {config.epochs} epochs: {what} was laid out over {before}, and what is "
        f"done would have been different. Write such parts of a run in epochs from the start, or begin "
        f"another run with these weights: --model.init {folder}"
    )
