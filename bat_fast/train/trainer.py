"""The training loop."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bat_fast import data
from bat_fast.attacks import report_labels
from bat_fast.config import TrainConfig, settled
from bat_fast.device import pick_device, set_backends
from bat_fast.report.progress import Progress
from bat_fast.runs.folder import RunFolder, finite
from bat_fast.runs.metrics import metric, renamed
from bat_fast.runs.plain import plain
from bat_fast.train import build
from bat_fast.train.alarms import collapse_alarm, label_alarm, patience_alarm, stuck_alarm, too_few
from bat_fast.train.evidence import Evidence
from bat_fast.train.feed import Feed
from bat_fast.train.finish import finish
from bat_fast.train.health import advice, check_weights
from bat_fast.train.interruption import Interruption
from bat_fast.train.meter import EpochMeter
from bat_fast.train.observer import Observer
from bat_fast.train.record import Record
from bat_fast.train.resume import check_state, identity, load_best
from bat_fast.train.rng import restore_rng_state, rng_state
from bat_fast.train.snapshot import begin_epoch, load_state, place_of, state_of
from bat_fast.train.together import check_alike, check_same_weights
from bat_fast.train.updates import updates
from bat_fast.train.validation import accuracies, chosen, eval_attack, validation_attack
from bat_fast.world.ranks import ALONE, World


class Trainer:
    """Trains a model as a configuration says, into a run folder, and survives being killed at any time.

    The best epoch is the first of those with the highest robust accuracy on the validation split (clean
    accuracy without attacks), and the test split is looked at once, at the end; or as ``eval.choose`` says.
    Ctrl-C or a signal of `Interruption` ends the step, or the validation, writes a checkpoint and raises
    KeyboardInterrupt. A resumed run ends in the weights of an uninterrupted one (docs/determinism.md).

    Args:
        config: the settings.
        out: the run folder.
        resume: continue from the newest checkpoint that is whole; starts from scratch where there is none.
        progress: draw a progress bar when stdout is a terminal; else one line per epoch.
        splits: the data, instead of those that ``config.data`` names; the run then records that they were
            given in Python, and is evaluated there.
        model: what is trained, instead of the one that ``config.model`` names: a module that takes pixels in
            [0, 1] and returns logits (`bat_fast.models.wrap`). Its own weights are trained.
        observers: told of every step and every epoch (`bat_fast.train.Observer`).
        world: the processes of `bat_fast.world.launch.joined`; each makes this trainer, the first writes.

    Raises:
        ValueError: a setting is out of range, or the run in ``out`` had other settings.
        FileExistsError: ``out`` is not empty and ``resume`` is off.
        BlockingIOError: another process writes to it.
    """

    def __init__(
        self,
        config: TrainConfig,
        out: Path | RunFolder,
        *,
        resume: bool = False,
        progress: bool = True,
        splits: data.Splits | None = None,
        model: nn.Module | None = None,
        observers: Iterable[Observer] = (),
        world: World = ALONE,
    ) -> None:
        build.check(config)
        self.config = config = settled(build.recorded(config, splits, model))
        self.folder = out if isinstance(out, RunFolder) else RunFolder(Path(out))
        self.device = pick_device(config.device, world.local_rank, world.local_size)
        self.world, self.observers, self.progress = world, tuple(observers), progress
        set_backends(config.cuda.tf32, config.cuda.benchmark, deterministic=config.deterministic)
        self.feed = Feed(config, self.device, splits, world)
        self.splits, self.loader = self.feed.splits, self.feed.train
        self.record = Record(self.folder, config, world)
        with self.record.held():
            self._begin(resume, model)

    def _begin(self, resume: bool, model: nn.Module | None) -> None:
        """Put the parts together, and open the folder: a run that is refused changes nothing in it."""
        config, train, world = self.config, self.splits.train, self.world
        self.identity = identity(self.splits)
        check_alike(world, config, self.identity)
        state, lines = self.record.newest(resume)
        right = not lines
        options: dict[str, Any] = {"mean": train.mean, "std": train.std, "begin": state is None}
        options |= {"samples": self.feed.ids, "model": model, "world": world}
        self.parts = build.parts(config, self.feed.shape, self.device, **options)
        self.model, self.method, self.step = self.parts.model, self.parts.method, self.parts.step
        self.alarm = collapse_alarm(self.parts.attack, self.feed)
        self._val_attack = validation_attack(config.eval)
        self.epoch, self.rows = 0, list[dict[str, Any]]()  # epochs done, and what was measured in each
        self.stopped = False  # before the last epoch, by the collapse alarm or for want of patience
        self.best: dict[str, Any] | None = None  # the row of the epoch chosen so far
        self._place: dict[str, Any] | None = None  # where an interrupted epoch was
        self._evidence = Evidence(self.folder, config, self.parts, self.feed)
        self.record.open(config, resume=resume)
        if state is not None:
            lines += self._restore(state)
        for line in filter(None, [*lines, too_few(self.splits.val, config.data.name)]):
            print(f"WARNING: {line}", flush=True)
        self.record.begin(config, train, self.rows, resume=resume, right=right)

    def fit(self) -> dict[str, Any]:
        """Train the epochs that are left, test the best one, and return what ``results.json`` holds.

        Raises:
            FloatingPointError: the loss is no longer finite.
        """
        try:
            with advice(self.folder.last, self._evidence.keep):
                return self._fit()
        finally:
            self.folder.lock.end()

    def _fit(self) -> dict[str, Any]:
        robust = metric("val", self._val_attack)
        for observer in self.observers:
            observer.begin(self)
        bar = Progress(self.config.epochs, len(self.loader), robust, bar=self.progress)
        with bar as progress, Interruption() as interruption:
            while self.epoch < self.config.epochs and not self.stopped:
                row = {"epoch": self.epoch + 1, **self._train_epoch(self.epoch, progress, interruption)}
                check_same_weights(self.world, self.model)
                row = self.world.broadcast(row | self._validate(self.epoch + 1))
                # Without attacks robust accuracy is near 0 and its maximum an accident of early epochs.
                criterion = robust if self.step.attacks else metric("val", "clean")
                self.best = chosen(self.best, row, criterion, last=self.config.eval.choose == "last")
                self.epoch += 1
                warnings = [label_alarm(self.feed, row, "val"), stuck_alarm(self.feed, row)]
                warnings.append(self._collapse(row))
                if not self.stopped and (end := patience_alarm(self.config, self.epoch, self.best)):
                    self.stopped = True
                    warnings.append(end)
                self._save(row)
                for warning in filter(None, warnings):
                    progress.warn(warning)
                progress.end_epoch(row)
                for observer in self.observers:
                    observer.epoch(row)
                if self.world.any(bool(interruption.asked)):
                    raise KeyboardInterrupt(max(self.world.sizes(interruption.asked)))
        assert self.best is not None  # the last epoch is always validated
        return finish(self.config, self.folder, self.parts, self.feed, self.best, self.rows, self.device)

    @property
    def evaluated(self) -> nn.Module:
        """The model that is validated and saved: the average of the weights where there is one."""
        return self.parts.evaluated

    @property
    def interrupted(self) -> bool:
        """Whether it goes on in the middle of an epoch, as a checkpoint between two steps left it."""
        return self._place is not None

    def _train_epoch(self, epoch: int, progress: Progress, interruption: Interruption) -> dict[str, float]:
        """One pass over the training split; ``epoch`` counts from 0."""
        config, world, good = self.config, self.world, self.record.good
        self.loader = self.feed.training(epoch)
        meter, place, self._place = EpochMeter(self.device), self._place, None
        begin_epoch(config.seed, epoch, place, self.loader, meter, self.step, world)
        progress.start_epoch(epoch + 1, self.loader.position, len(self.loader))
        rate = self.parts.optimizer.param_groups[0]["lr"]
        told: dict[str, Any] = {"keep": self._evidence.keep, "tell": progress.warn}
        made = updates(self.step, self.parts, config, self.loader, epoch, meter, good, **told)
        for update in made:
            rate = update.rate
            for observer in self.observers:
                observer.step(self.step.seen or update.batch, update.terms, epoch)
            progress.step(meter)
            due = bool(config.checkpoint_every) and (update.number + 1) % config.checkpoint_every == 0
            stop = world.any(bool(interruption.asked))
            if stop or due:
                place = place_of(self.loader, meter, self.step.attacks, world)
                self.record.last(self._state() | {"running": place}, due=due)
            if stop:
                raise KeyboardInterrupt(max(world.sizes(interruption.asked)))
        row = meter.means() | {"train/lr": rate} | meter.speed()
        row["perf/peak_mem_mib"] = max(world.objects(row["perf/peak_mem_mib"]))
        report_labels(torch.device(self.device))  # the means have waited for the last batch
        return row

    def _validate(self, epoch: int) -> dict[str, float]:
        """What the end of ``epoch``, counted from 1, measures: the collapse alarm, and validation if due."""
        config, row = self.config, dict[str, float]()
        if self.alarm is not None and self.step.attacks:
            attacks = (eval_attack(config, self.evaluated, name) for name in (self._val_attack, "fgsm"))
            row |= self.alarm.measure(self.evaluated, *attacks)
            self.stopped = self.alarm.raised and config.eval.on_collapse == "stop"
        if epoch % config.eval.every == 0 or epoch == config.epochs or self.stopped:
            row |= accuracies(config, self.feed, self.evaluated, "val", self._val_attack)
        return row

    def _collapse(self, row: dict[str, Any]) -> str | None:
        """Act on a collapse as the configuration says; a line about it, None where there is none."""
        if self.alarm is None or not row.get("val/collapsed"):
            return None
        what = self.alarm.describe(row)
        if self.config.eval.on_collapse == "restore" and self.best not in (None, row):
            load_state(self.parts, load_best(self.folder, self.best, self.world))
            return f"{what}; went back to the weights of epoch {self.best['epoch']}"
        return f"{what}; stopped" if self.stopped else what

    def _state(self) -> dict[str, Any]:
        self.step.health.settle()  # no checkpoint has a NaN
        check_weights(self.model)
        return {
            "epoch": self.epoch,
            "best": self.best,
            "stopped": self.stopped,
            "rows": self.rows,
            "data": self.identity,
            "config": plain(self.config),
            **state_of(self.parts),
            "rng": rng_state(self.world),
        }

    def _save(self, row: dict[str, Any]) -> None:
        self.rows.append(finite(row))
        state = self._state()
        self.record.epoch(row, state, best=self.best is row)
        self.record.last(state)

    def _restore(self, state: dict[str, Any]) -> list[str]:
        """Go on from ``state``; returns what is to be said about the files."""
        check_state(state, self.config, self.identity, len(self.loader), self.folder.path)
        rows, line = self.record.rows(state)
        self.rows, self.best = list(map(renamed, rows)), state["best"] and renamed(state["best"])
        self.epoch, self.stopped = state["epoch"], state["stopped"]
        load_state(self.parts, state)
        restore_rng_state(state["rng"], self.world)
        self._place = state.get("running")
        self.record.good.resume(state)
        return [line] if line else []
