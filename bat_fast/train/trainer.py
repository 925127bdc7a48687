"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bat_fast import data
from bat_fast.attacks import report_labels
from bat_fast.config import TrainConfig, settled
from bat_fast.config.limits import in_fractions
from bat_fast.device import pick_device, set_backends
from bat_fast.report.progress import Progress
from bat_fast.runs.checkpoint import load_checkpoint, save_checkpoint
from bat_fast.runs.folder import RunFolder, check_same, plain
from bat_fast.runs.metrics import metric
from bat_fast.train import build
from bat_fast.train.alarms import CollapseAlarm, label_alarm, stuck_alarm
from bat_fast.train.feed import Feed
from bat_fast.train.finish import finish
from bat_fast.train.interruption import Interruption
from bat_fast.train.longer import check_longer
from bat_fast.train.meter import EpochMeter
from bat_fast.train.observer import Observer
from bat_fast.train.optimizer import set_rate
from bat_fast.train.rng import restore_rng_state, rng_state, seed_epoch
from bat_fast.train.snapshot import load_state, place_of, return_to, state_of
from bat_fast.train.validation import accuracies, eval_attack


class Trainer:
    """Trains a model as a configuration says, into a run folder, and survives being killed at any time.

    The best epoch is the first of those with the highest robust accuracy on the validation split (clean
    accuracy for a method that does not attack); the test split is looked at once, at the end. `EvalConfig`'s
    ``choose`` says otherwise.
    Ctrl-C or SIGTERM during training ends the step, writes a checkpoint and raises KeyboardInterrupt.
    A resumed run, also from within an epoch, ends in the weights of an uninterrupted one, bit for bit on the
    CPU; on a GPU as far as the kernels of cuDNN repeat themselves.

    Args:
        config: the settings.
        out: the run folder.
        resume: continue from ``checkpoints/last.pt``; starts from scratch where there is none.
        progress: draw a progress bar when stdout is a terminal; else one line per epoch.
        splits: the data, instead of those that ``config.data`` names.
        model: what is trained, instead of the one that ``config.model`` names: a module that takes pixels in
            [0, 1] and returns logits (`bat_fast.models.wrap`). Its own weights are trained.
        observers: told of every step and every epoch (`bat_fast.train.Observer`).

    Raises:
        ValueError: a setting is out of range, or the run in ``out`` had other settings.
        FileExistsError: ``out`` is not empty and ``resume`` is off.
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
    ) -> None:
        build.check(config)
        self.config = config = settled(config)
        self.optim = in_fractions(config).optim
        self.folder = out if isinstance(out, RunFolder) else RunFolder(Path(out))
        self.progress = progress
        self.device, self.observers = pick_device(config.device), tuple(observers)
        set_backends(config.cuda.tf32, config.cuda.benchmark)
        self.feed = Feed(config, self.device, splits)
        self.splits, self.loader, train = self.feed.splits, self.feed.train, self.feed.splits.train
        going_on = resume and self.folder.last.exists()
        options: dict[str, Any] = {"mean": train.mean, "std": train.std, "begin": not going_on}
        options |= {"samples": self.feed.ids, "model": model}
        self.parts = build.parts(config, self.feed.shape, self.device, **options)
        self.model, self.method, self.step = self.parts.model, self.parts.method, self.parts.step
        attack = self.parts.attack
        one_step = attack.steps == 1 and attack.eps > 0
        self.alarm = CollapseAlarm(next(iter(self.feed.eval("val")))) if one_step else None
        self._val_attack = f"pgd{config.eval.val_steps}"
        self.epoch = 0  # epochs done
        self.best: dict[str, Any] | None = None  # the row of the epoch chosen so far
        self.stopped = False  # before the last epoch, by the collapse alarm or for want of patience
        self._place: dict[str, Any] | None = None  # where an interrupted epoch was
        self.folder.open(config, resume=resume)
        self.folder.write_classes(train.class_names)
        self.folder.write_labels(train.index, train.true_labels, train.labels)
        if going_on:
            self._restore(load_checkpoint(self.folder.last))
        self.folder.write_config(config)
        self.folder.truncate(self.epoch)

    def fit(self) -> dict[str, Any]:
        """Train the epochs that are left, test the best one, and return what ``results.json`` holds.

        Raises:
            FloatingPointError: the loss is no longer finite.
        """
        robust = metric("val", self._val_attack)
        with Progress(self.config.epochs, len(self.loader), robust, bar=self.progress) as progress:
            while self.epoch < self.config.epochs and not self.stopped:
                row = {"epoch": self.epoch + 1, **self._train_epoch(self.epoch, progress)}
                row |= self._validate(self.epoch + 1)
                # Without attacks robust accuracy is near 0 and its maximum an accident of early epochs.
                self._choose(row, robust if self.step.attacks else metric("val", "clean"))
                self.epoch += 1
                warnings = [label_alarm(self.feed, row, "val"), stuck_alarm(self.feed, row)]
                warnings += [self._collapse(row), self._patience()]
                self._save(row)
                for warning in filter(None, warnings):
                    progress.warn(warning)
                progress.end_epoch(row)
                for observer in self.observers:
                    observer.epoch(row)
        assert self.best is not None  # the last epoch is always validated
        return finish(self.config, self.folder, self.parts, self.feed, self.best, self.device)

    @property
    def evaluated(self) -> nn.Module:
        """The model that is validated and saved: the average of the weights where there is one."""
        return self.parts.evaluated

    def _train_epoch(self, epoch: int, progress: Progress) -> dict[str, float]:
        """One pass over the training split; ``epoch`` counts from 0."""
        config, optim, average = self.config, self.optim, self.parts.average
        done, total_steps = epoch / config.epochs, config.epochs * len(self.loader)
        meter = self._begin_epoch(epoch)
        progress.start_epoch(epoch + 1, self.loader.position)
        self.step.set_progress(done)
        self.model.train()
        rate = self.parts.optimizer.param_groups[0]["lr"]
        with Interruption() as interruption:
            for number, batch in enumerate(self.loader, epoch * len(self.loader) + self.loader.position):
                rate = set_rate(self.parts.optimizer, optim, number, total_steps)
                terms = self.step(batch, epoch, meter, awp=done >= optim.awp_start)
                if average is not None and done >= optim.average_start:
                    average.update_parameters(self.model)
                meter.add(terms, len(batch.y))
                for observer in self.observers:
                    observer.step(batch, terms, epoch)
                progress.step(meter)
                every = config.checkpoint_every
                if interruption.asked or (every and (number + 1) % every == 0):
                    place = place_of(self.loader, meter, self.step.attacks)
                    save_checkpoint(self.folder.last, self._state() | {"running": place})
                if interruption.asked:
                    raise KeyboardInterrupt
        row = meter.means() | {"train/lr": rate} | meter.speed()
        report_labels(torch.device(self.device))  # the means have waited for the last batch
        if not math.isfinite(row["train/loss"]):
            raise FloatingPointError(self._diverged(epoch, row["train/loss"]))
        return row

    def _begin_epoch(self, epoch: int) -> EpochMeter:
        """Put loader, generators and meter at the start of an epoch, or where it was interrupted."""
        meter, place = EpochMeter(self.device), self._place
        self._place = None
        if place is not None:
            return_to(place, self.loader, meter)
            self.step.attacks = place["attacks"]
            return meter
        seed_epoch(self.config.seed, epoch)
        self.loader.set_epoch(epoch)
        return meter

    def _diverged(self, epoch: int, loss: float) -> str:
        good = (
            f"the last good checkpoint is {self.folder.last} (epoch {epoch})" if epoch else "none was saved"
        )
        return f"the training loss became {loss} in epoch {epoch + 1}; {good}; try a lower --optim.lr"

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

    def _choose(self, row: dict[str, Any], criterion: str) -> None:
        """Take ``row`` as the best so far, if it is; a collapsed epoch only where there is no other."""
        if criterion not in row:
            return
        if self.config.eval.choose == "last":
            self.best = row
            return
        if self.best and row.get("val/collapsed"):
            return
        if self.best is None or row[criterion] > self.best[criterion]:
            self.best = row

    def _collapse(self, row: dict[str, Any]) -> str | None:
        """Act on a collapse as the configuration says; a line about it, None where there is none."""
        if self.alarm is None or not row.get("val/collapsed"):
            return None
        what = self.alarm.describe(row)
        if self.config.eval.on_collapse == "restore" and self.best is not row and self.folder.best.exists():
            state = load_checkpoint(self.folder.best)
            load_state(self.parts, state)
            return f"{what}; went back to the weights of epoch {state['epoch']}"
        return f"{what}; stopped" if self.stopped else what

    def _patience(self) -> str | None:
        """End the run where validation has not improved for long enough; a line about it, or None."""
        patience = self.config.eval.patience
        since = 0 if self.best is None else self.epoch - self.best["epoch"]
        if self.stopped or not patience or since < patience or self.epoch == self.config.epochs:
            return None
        self.stopped = True
        return f"no better validation for {since} epochs (eval.patience); stopped"

    def _state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "best": self.best,
            "stopped": self.stopped,
            "config": plain(self.config),
            **state_of(self.parts),
            "rng": rng_state(),
        }

    def _save(self, row: dict[str, Any]) -> None:
        """Record an epoch. The order matters: a crash between two files must lose none of them."""
        state = self._state()
        self.folder.append(row)
        if self.best is row:
            save_checkpoint(self.folder.best, state)
        save_checkpoint(self.folder.last, state)

    def _restore(self, state: dict[str, Any]) -> None:
        check_same(state["config"], plain(self.config), self.folder.path)
        before, done = state["config"]["epochs"], state["epoch"] + ("running" in state)
        if before != self.config.epochs:
            check_longer(self.config, before, done, len(self.loader), self.folder.path)
        self.epoch, self.best, self.stopped = state["epoch"], state["best"], state["stopped"]
        load_state(self.parts, state)
        restore_rng_state(state["rng"])
        self._place = state.get("running")
