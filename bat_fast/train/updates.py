"""The updates of an epoch, one after the other: what a run and a model of a study have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from bat_fast.batch import Batch
from bat_fast.config import TrainConfig
from bat_fast.config.limits import in_fractions
from bat_fast.data import Loader
from bat_fast.methods import Terms
from bat_fast.train.build import Parts
from bat_fast.train.meter import EpochMeter
from bat_fast.train.optimizer import set_rate
from bat_fast.train.snapshot import Good, leave_out
from bat_fast.train.step import TrainStep


class Update(NamedTuple):
    """One update that was made, or left out (``optim.on_nonfinite``)."""

    number: int  # in the run, from 0
    batch: Batch
    terms: Terms
    rate: float


def updates(
    step: TrainStep,
    parts: Parts,
    config: TrainConfig,
    loader: Loader,
    epoch: int,
    meter: EpochMeter,
    good: Good,
    *,
    keep: Callable[[], object] = lambda: None,
    tell: Callable[[str], object] = lambda line: None,
) -> Iterator[Update]:
    """Make the updates of an epoch that are left, and count them.

    Args:
        step: makes them.
        parts: of the run; their model is in train mode from the first update on.
        config: the settings.
        loader: at its place in the epoch (`bat_fast.train.snapshot.begin_epoch`).
        epoch: counted from 0.
        meter: adds up what each update says.
        good: what ``optim.on_nonfinite: restore`` goes back to.
        keep: called when an update is left out, before the weights that met the batch are gone.
        tell: called with a line about it.
    """
    optim, average = in_fractions(config).optim, parts.average
    done, total = epoch / config.epochs, config.epochs * len(loader)
    step.set_progress(done)
    parts.model.train()
    for number, batch in enumerate(loader, epoch * len(loader) + loader.position):
        rate = set_rate(parts.optimizer, optim, number, total)
        terms = step(batch, epoch, meter, awp=done >= optim.awp_start)
        if step.health.left_out:
            keep()
            tell(leave_out(parts, good, meter, number))
        else:
            if average is not None and done >= optim.average_start:
                average.update_parameters(parts.model)
            meter.add(terms, len(terms.per_sample))
        yield Update(number, batch, terms, rate)
