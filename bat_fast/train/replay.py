"""A step that ended in NaN or infinity, run again on the CPU: where in it the first such value appears."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bat_fast.batch import Batch
from bat_fast.config import TrainConfig
from bat_fast.data import Shape
from bat_fast.runs.checkpoint import load_checkpoint
from bat_fast.runs.folder import RunFolder
from bat_fast.train import build
from bat_fast.train.meter import EpochMeter
from bat_fast.train.rng import seed_epoch
from bat_fast.train.snapshot import load_state


class Look(NamedTuple):
    """One value of the step, in the order in which they are computed."""

    what: str
    values: int
    bad: int  # NaN or infinite
    largest: float  # of the others, in size


class Replay(NamedTuple):
    """What a step looks like when it is run again."""

    step: int  # of the run, from 0
    epoch: int  # from 0
    ids: list[int]  # of the batch
    exact: bool  # with the weights that met the batch; else with those of the last checkpoint
    looks: list[Look]

    @property
    def first(self) -> Look | None:
        """The first value that is not finite."""
        return next((look for look in self.looks if look.bad), None)


def replay(folder: RunFolder, config: TrainConfig) -> Replay:
    """Run the step again whose batch `bat_fast.train.evidence.Evidence` has kept.

    Args:
        folder: of the run; nothing in it changes.
        config: of the run.

    Raises:
        FileNotFoundError: no batch is kept, or there is no checkpoint to take the weights from.
        ValueError: a file is damaged, or the model or data were given in Python.
    """
    if not folder.nonfinite.is_file():
        raise FileNotFoundError(
            f"{folder.path} has no {folder.nonfinite.name}: no step of this run has met a NaN or an infinity"
        )
    kept = load_checkpoint(folder.nonfinite)
    learnt = kept["learnt"] or load_checkpoint(folder.last)
    options: dict[str, Any] = {"samples": kept["samples"], "begin": False}
    config = replace(config, optim=replace(config.optim, compile=False))  # to look at what modules return
    parts = build.parts(config, Shape(*kept["shape"]), "cpu", **options)
    load_state(parts, learnt)
    for name, value in kept["attack"].items():
        setattr(parts.attack, name, value)
    seed_epoch(config.seed, kept["epoch"])
    torch.set_rng_state(kept["chance"])
    batch, looks = Batch(*kept["batch"]), list[Look]()
    parts.model.train()
    _run(parts, batch, kept, looks)
    return Replay(kept["step"], kept["epoch"], batch.index.tolist(), kept["learnt"] is not None, looks)


def _run(parts: build.Parts, batch: Batch, kept: dict[str, Any], looks: list[Look]) -> None:
    looks += [_look(f"weights: {name}", value) for name, value in parts.model.named_parameters()]
    looks.append(_look("images", batch.x))
    step = parts.step
    seen = step.watch(batch, kept["epoch"], EpochMeter("cpu"), kept["awp"])
    what, value = next(seen)  # the attack is over, which takes a model with hooks for another one
    looks.append(_look(what, value))
    with _outputs(parts.model, looks):
        looks.extend(_look(what, value) for what, value in seen)
    for name, parameter in reversed(list(parts.model.named_parameters())):  # as the backward pass goes
        if parameter.grad is not None:
            looks.append(_look(f"gradient: {name}", parameter.grad))


@contextmanager
def _outputs(model: nn.Module, looks: list[Look]) -> Iterator[None]:
    """Looks at what every module returns."""

    def hook(name: str) -> Any:
        def look(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                looks.append(_look(f"output: {name or 'model'}", output))

        return look

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _look(what: str, tensor: Tensor) -> Look:
    values = tensor.detach()
    finite = values[values.isfinite()].abs() if values.is_floating_point() else values[:0]
    bad = int((~values.isfinite()).sum()) if values.is_floating_point() else 0
    return Look(what, values.numel(), bad, float(finite.max()) if finite.numel() else 0.0)
