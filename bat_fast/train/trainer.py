"""The training loop."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bat_fast import data
from bat_fast.config import TrainConfig
from bat_fast.evaluate import build_model, pick_device
from bat_fast.report.curves import draw_curves
from bat_fast.report.progress import Progress
from bat_fast.train import build
from bat_fast.train.checkpoint import export_model, load_checkpoint, save_checkpoint
from bat_fast.train.collapse import CollapseAlarm
from bat_fast.train.feed import Feed
from bat_fast.train.interruption import Interruption
from bat_fast.train.meter import EpochMeter
from bat_fast.train.results import metadata_of, results_of
from bat_fast.train.rng import restore_rng_state, rng_state, seed_epoch
from bat_fast.train.run_folder import RunFolder, check_same, plain
from bat_fast.train.schedule import learning_rate
from bat_fast.train.step import TrainStep
from bat_fast.train.validation import accuracies, data_warnings, eval_attack, label_alarm


class Trainer:
    """Trains a model as a configuration says, into a run folder, and survives being killed at any time.

    The best epoch is the first of those with the highest robust accuracy on the validation split (clean
    accuracy for a method that does not attack); the test split is looked at once, at the end.
    Ctrl-C or SIGTERM during training ends the step, writes a checkpoint and raises KeyboardInterrupt.
    A resumed run, also from within an epoch, ends in the weights of an uninterrupted one, bit for bit on the
    CPU; on a GPU as far as the kernels of cuDNN repeat themselves.

    Args:
        config: the settings.
        out: the run folder (`RunFolder`).
        resume: continue from ``checkpoints/last.pt``; starts from scratch where there is none.
        progress: draw a progress bar when stdout is a terminal; else one line per epoch.
        splits: the data, instead of those that ``config.data`` names.

    Raises:
        ValueError: a setting is out of range, or the run in ``out`` had other settings.
        FileExistsError: ``out`` is not empty and ``resume`` is off.
    """

    def __init__(
        self,
        config: TrainConfig,
        out: Path,
        *,
        resume: bool = False,
        progress: bool = True,
        splits: data.Splits | None = None,
    ) -> None:
        build.check(config)
        self.config, self.folder, self.progress = config, RunFolder(Path(out)), progress
        self.device = pick_device(config.device)
        self.feed = Feed(config, self.device, splits)
        self.splits, self.loader, train = self.feed.splits, self.feed.train, self.feed.splits.train
        self.recipe = build.model_recipe(config, self.feed.shape)
        torch.manual_seed(config.seed)
        self.model = build_model(self.recipe, mean=train.mean, std=train.std).to(self.device)
        self.method = build.build_method(config)
        if hasattr(self.method, "prepare"):
            self.method.prepare(self.feed.ids, self.recipe["num_classes"], self.device)
        attack = build.build_attack(config, self.method, self.model)
        self.optimizer = build.build_optimizer(config, self.model)
        self.step = TrainStep(self.model, self.method, attack, self.optimizer, config.attack, config.optim)
        self.average = build.build_average(config, self.model)
        one_step = attack.steps == 1 and attack.eps > 0
        self.alarm = CollapseAlarm(next(iter(self.feed.eval("val")))) if one_step else None
        self.epoch = 0  # epochs done
        self.best: dict[str, Any] | None = None  # the row of the epoch chosen so far
        self.stopped = False  # before the last epoch, by the collapse alarm
        self._running: dict[str, Any] | None = None  # what an interrupted epoch had measured
        self.folder.open(config, resume=resume)
        self.folder.write_classes(train.class_names)
        self.folder.write_labels(train.index, train.true_labels, train.labels)
        if resume and self.folder.last.exists():
            self._restore(load_checkpoint(self.folder.last))
        self.folder.truncate(self.epoch)

    def fit(self) -> dict[str, Any]:
        """Train the epochs that are left, test the best one, and return what ``results.json`` holds.

        Raises:
            FloatingPointError: the loss is no longer finite.
        """
        robust = f"val/pgd{self.config.eval.val_steps}_acc"
        with Progress(self.config.epochs, len(self.loader), robust, bar=self.progress) as progress:
            while self.epoch < self.config.epochs and not self.stopped:
                epoch = self.epoch
                row = {"epoch": epoch + 1, **self._train_epoch(epoch, progress)}
                if self.alarm is not None and self.step.attacks:
                    attack = eval_attack(self.config, self.evaluated, self.config.eval.val_steps)
                    row |= self.alarm.measure(self.evaluated, attack)
                    self.stopped = self.alarm.raised and self.config.eval.on_collapse == "stop"
                last = epoch + 1 == self.config.epochs or self.stopped
                if (epoch + 1) % self.config.eval.every == 0 or last:
                    row |= self._accuracies("val", self.config.eval.val_steps)
                    # Without attacks robust accuracy is near 0 and its maximum an accident of early epochs.
                    criterion = robust if self.step.attacks else "val/clean_acc"
                    better = self.best is None or row[criterion] > self.best[criterion]
                    if better and not (self.best and row.get("val/collapsed")):
                        self.best = row
                self.epoch = epoch + 1
                if alarm := "val/clean_acc" in row and label_alarm(self.feed, row, "val"):
                    progress.warn(alarm)
                if row.get("val/collapsed"):
                    progress.warn(self._collapsed(row))
                self._save(row)
                progress.end_epoch(row)
        return self._finish()

    @property
    def evaluated(self) -> nn.Module:
        """The model that is validated and saved: the average where there is one."""
        averaged = self.average is not None and int(self.average.n_averaged) > 0
        return self.average.module if self.average is not None and averaged else self.model

    def _train_epoch(self, epoch: int, progress: Progress) -> dict[str, float]:
        """One pass over the training split; ``epoch`` counts from 0."""
        config = self.config
        done, total_steps = epoch / config.epochs, config.epochs * len(self.loader)
        meter = self._begin_epoch(epoch)
        progress.start_epoch(epoch + 1, self.loader.position)
        self.step.set_progress(done)
        self.model.train()
        group = self.optimizer.param_groups[0]
        with Interruption() as interruption:
            for number, batch in enumerate(self.loader, epoch * len(self.loader) + self.loader.position):
                group["lr"] = learning_rate(config.optim, number, total_steps)
                terms = self.step(batch, epoch, meter, awp=done >= config.optim.awp_start)
                if self.average is not None and done >= config.optim.average_start:
                    self.average.update_parameters(self.model)
                meter.add(terms, len(batch.y))
                progress.step(meter)
                every = config.checkpoint_every
                if interruption.asked or (every and (number + 1) % every == 0):
                    self._save_within(meter)
                if interruption.asked:
                    raise KeyboardInterrupt
        row = meter.means() | {"train/lr": group["lr"]} | meter.speed()
        if not math.isfinite(row["train/loss"]):
            raise FloatingPointError(self._diverged(epoch, row["train/loss"]))
        return row

    def _begin_epoch(self, epoch: int) -> EpochMeter:
        """Put loader, generators and meter at the start of an epoch, or where it was interrupted."""
        meter = EpochMeter(self.device)
        if self._running is None:
            seed_epoch(self.config.seed, epoch)
            self.loader.set_epoch(epoch)
            return meter
        self.loader.load_state_dict(self._running["loader"])
        meter.load_state_dict(self._running["meter"])
        restore_rng_state(self._running["rng"])
        self.step.attacks, self._running = self._running["attacks"], None
        return meter

    def _diverged(self, epoch: int, loss: float) -> str:
        good = (
            f"the last good checkpoint is {self.folder.last} (epoch {epoch})" if epoch else "none was saved"
        )
        return f"the training loss became {loss} in epoch {epoch + 1}; {good}; try a lower --optim.lr"

    def _collapsed(self, row: dict[str, Any]) -> str:
        """Act on a collapse as the configuration says, and say so."""
        assert self.alarm is not None
        what = self.alarm.describe(row)
        if self.config.eval.on_collapse == "restore" and self.best is not row and self.folder.best.exists():
            state = load_checkpoint(self.folder.best)
            self._load(state)
            return f"{what}; went back to the weights of epoch {state['epoch']}"
        return f"{what}; stopped" if self.stopped else what

    def _accuracies(self, split: str, steps: int) -> dict[str, float]:
        return accuracies(self.config, self.feed, self.evaluated, split, steps)

    def _state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "best": self.best,
            "stopped": self.stopped,
            "config": plain(self.config),
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average is not None else {},
            "optimizer": self.optimizer.state_dict(),
            "method": self.method.state_dict() if hasattr(self.method, "state_dict") else {},
            "rng": rng_state(),
        }

    def _save_within(self, meter: EpochMeter) -> None:
        """A checkpoint between two steps of an epoch."""
        running = {
            "loader": self.loader.state_dict(),
            "meter": meter.state_dict(),
            "rng": rng_state(),
            "attacks": self.step.attacks,
        }
        save_checkpoint(self.folder.last, self._state() | {"running": running})

    def _save(self, row: dict[str, Any]) -> None:
        """Record an epoch. The order matters: a crash between two files must lose none of them."""
        state = self._state()
        self.folder.append(row)
        if self.best is row:
            save_checkpoint(self.folder.best, state)
        save_checkpoint(self.folder.last, state)

    def _restore(self, state: dict[str, Any]) -> None:
        check_same(state["config"], plain(self.config), self.folder.path)
        self.epoch, self.best, self.stopped = state["epoch"], state["best"], state["stopped"]
        self._load(state)
        restore_rng_state(state["rng"])
        self._running = state.get("running")

    def _load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if hasattr(self.method, "load_state_dict"):
            self.method.load_state_dict(state["method"])

    def _finish(self) -> dict[str, Any]:
        """Test the best epoch and write everything that people read."""
        assert self.best is not None  # the last epoch is always validated
        self._load(load_checkpoint(self.folder.best))
        rows = self.folder.rows()
        test = self._accuracies("test", self.config.eval.test_steps)
        for line in data_warnings(self.feed, self.best | test):
            print(f"WARNING: {line}", flush=True)
        sizes = {split: len(source) for split, source in self.splits._asdict().items()}
        results = results_of(self.config, self.best, rows, test, sizes, self.device)
        export_model(
            self.folder.model,
            self.evaluated,
            metadata_of(self.config, self.recipe, self.splits.train.class_names),
        )
        self.folder.write_results(results)
        draw_curves(rows, self.best["epoch"], self.folder.curves)
        return results
