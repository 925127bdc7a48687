"""The training loop."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bat_fast import data
from bat_fast.attacks import PGD
from bat_fast.config import TrainConfig
from bat_fast.evaluate import build_model, evaluate, pick_device
from bat_fast.report.curves import draw_curves
from bat_fast.report.progress import Progress
from bat_fast.train import build
from bat_fast.train.checkpoint import export_model, load_checkpoint, save_checkpoint
from bat_fast.train.collapse import CollapseAlarm
from bat_fast.train.meter import EpochMeter
from bat_fast.train.results import metadata_of, results_of
from bat_fast.train.rng import restore_rng_state, rng_state, seed_epoch
from bat_fast.train.run_folder import RunFolder, check_same, plain
from bat_fast.train.schedule import learning_rate
from bat_fast.train.step import TrainStep


class Trainer:
    """Trains a model as a configuration says, into a run folder, and survives being killed at any time.

    The best epoch is the first of those with the highest robust accuracy on the validation split (clean
    accuracy for a method that does not attack); the test split is looked at once, at the end.
    A resumed run ends in the weights of an uninterrupted one, bit for bit on the CPU; on a GPU as far
    as the kernels of cuDNN repeat themselves.

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
        self.splits = data.load(**asdict(config.data), seed=config.seed) if splits is None else splits
        train = self.splits.train
        self.loader = data.ResidentLoader(
            train, config.batch_size, shuffle=True, seed=config.seed, device=self.device
        )
        shape = data.Shape(train.num_classes, train.images.shape[1], train.images.shape[-1])
        self.recipe = build.model_recipe(config, shape)
        torch.manual_seed(config.seed)
        self.model = build_model(self.recipe, mean=train.mean, std=train.std).to(self.device)
        self.method = build.build_method(config)
        if hasattr(self.method, "prepare"):
            ids = 1 + int(train.index.max())
            self.method.prepare(ids, self.recipe["num_classes"], self.device)
        attack = build.build_attack(config, self.method, self.model)
        self.optimizer = build.build_optimizer(config, self.model)
        self.step = TrainStep(self.model, self.method, attack, self.optimizer, config.attack, config.optim)
        self.average = build.build_average(config, self.model)
        one_step = attack.steps == 1 and attack.eps > 0
        self.alarm = CollapseAlarm(next(iter(self._eval_loader("val")))) if one_step else None
        self.epoch = 0  # epochs done
        self.best: dict[str, Any] | None = None  # the row of the epoch chosen so far
        self.stopped = False  # before the last epoch, by the collapse alarm
        self.folder.open(config, resume=resume)
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
                    attack = self._eval_attack(self.config.eval.val_steps)
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
        seed_epoch(config.seed, epoch)
        done, total_steps = epoch / config.epochs, config.epochs * len(self.loader)
        meter = EpochMeter(self.device)
        progress.start_epoch(epoch + 1)
        self.loader.set_epoch(epoch)
        self.step.set_progress(done)
        self.model.train()
        for number, batch in enumerate(self.loader, start=epoch * len(self.loader)):
            rate = learning_rate(config.optim, number, total_steps)
            self.optimizer.param_groups[0]["lr"] = rate
            terms = self.step(batch, epoch, meter, awp=done >= config.optim.awp_start)
            if self.average is not None and done >= config.optim.average_start:
                self.average.update_parameters(self.model)
            meter.add(terms, len(batch.y))
            progress.step(meter)
        row = meter.means() | {"train/lr": rate} | meter.speed()
        if not math.isfinite(row["train/loss"]):
            raise FloatingPointError(self._diverged(epoch, row["train/loss"]))
        return row

    def _diverged(self, epoch: int, loss: float) -> str:
        good = (
            f"the last good checkpoint is {self.folder.last} (epoch {epoch})" if epoch else "none was saved"
        )
        return f"the training loss became {loss} in epoch {epoch + 1}; {good}; try a lower --optim.lr"

    def _collapsed(self, row: dict[str, Any]) -> str:
        """Act on a collapse as the configuration says, and say so."""
        what = (
            f"catastrophic overfitting in epoch {row['epoch']}: {row['val/fgsm_acc']:.1%} of the held-out "
            "images withstand FGSM, less than half of that PGD"
        )
        if self.config.eval.on_collapse == "restore" and self.best is not row and self.folder.best.exists():
            state = load_checkpoint(self.folder.best)
            self._load(state)
            return f"{what}; went back to the weights of epoch {state['epoch']}"
        return f"{what}; stopped" if self.stopped else what

    def _eval_loader(self, split: str) -> data.ResidentLoader:
        source, size = getattr(self.splits, split), self.config.eval.batch_size
        return data.ResidentLoader(source, size, shuffle=False, seed=0, device=self.device)

    def _eval_attack(self, steps: int) -> PGD:
        attack, step = self.config.attack, self.config.eval.step_size
        return PGD(
            self.evaluated,
            eps=attack.eps,
            step_size=attack.step_size if step is None else step,
            steps=steps,
            norm=attack.norm,
            seed=self.config.seed,
        )

    def _accuracies(self, split: str, steps: int) -> dict[str, float]:
        """``SPLIT/clean_acc`` and ``SPLIT/pgdSTEPS_acc``, in [0, 1]."""
        counts = evaluate(self.evaluated, self._eval_loader(split), self._eval_attack(steps))
        return {f"{split}/clean_acc": counts["clean_acc"], f"{split}/pgd{steps}_acc": counts["robust_acc"]}

    def _save(self, row: dict[str, Any]) -> None:
        """Record an epoch. The order matters: a crash between two files must lose none of them."""
        state = {
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
        self.folder.append(row)
        if self.best is row:
            save_checkpoint(self.folder.best, state)
        save_checkpoint(self.folder.last, state)

    def _restore(self, state: dict[str, Any]) -> None:
        check_same(state["config"], plain(self.config), self.folder.path)
        self.epoch, self.best, self.stopped = state["epoch"], state["best"], state["stopped"]
        self._load(state)
        restore_rng_state(state["rng"])

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
        sizes = {split: len(source) for split, source in self.splits._asdict().items()}
        results = results_of(self.config, self.best, rows, test, sizes, self.device)
        export_model(self.folder.model, self.evaluated, metadata_of(self.config, self.recipe))
        self.folder.write_results(results)
        draw_curves(rows, self.best["epoch"], self.folder.curves)
        return results
