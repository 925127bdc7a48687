"""The training loop."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bat_fast import __version__, data, methods
from bat_fast.attacks import PGD
from bat_fast.config import TrainConfig
from bat_fast.data import Source
from bat_fast.evaluate import build_model, evaluate, pick_device
from bat_fast.report.curves import draw_curves
from bat_fast.report.progress import Progress
from bat_fast.train.checkpoint import export_model, load_checkpoint, save_checkpoint
from bat_fast.train.meter import EpochMeter
from bat_fast.train.provenance import git_revision, versions
from bat_fast.train.rng import restore_rng_state, rng_state, seed_epoch
from bat_fast.train.run_folder import RunFolder, check_same, plain
from bat_fast.train.schedule import learning_rate


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

    Raises:
        ValueError: a setting is out of range, or the run in ``out`` had other settings.
        FileExistsError: ``out`` is not empty and ``resume`` is off.
    """

    def __init__(
        self, config: TrainConfig, out: Path, *, resume: bool = False, progress: bool = True
    ) -> None:
        _check(config)
        self.config, self.folder, self.progress = config, RunFolder(Path(out)), progress
        self.device = pick_device(config.device)
        self.splits = data.load(config.data.name, seed=config.seed)
        self.loader = data.ResidentLoader(
            self.splits.train, config.batch_size, shuffle=True, seed=config.seed, device=self.device
        )
        self.recipe = _model_recipe(config, self.splits.train)
        torch.manual_seed(config.seed)
        train = self.splits.train
        self.model = build_model(self.recipe, mean=train.mean, std=train.std).to(self.device)
        options = {key: value for key, value in config.method.items() if key != "name"}
        self.method = methods.create(config.method["name"], **options)
        self.attack = PGD(self.model, **asdict(config.attack), seed=config.seed)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            config.optim.lr,
            config.optim.momentum,
            weight_decay=config.optim.weight_decay,
        )
        self.epoch = 0  # epochs done
        self.best: dict[str, Any] | None = None  # the row of the epoch chosen so far
        self.folder.open(config, resume=resume)
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
            for epoch in range(self.epoch, self.config.epochs):
                row = {"epoch": epoch + 1, **self._train_epoch(epoch, progress)}
                if (epoch + 1) % self.config.eval.every == 0 or epoch + 1 == self.config.epochs:
                    row |= self._accuracies("val", self.config.eval.val_steps)
                    # Without attacks robust accuracy is near 0 and its maximum an accident of early epochs.
                    criterion = robust if row["perf/attack_ms"] else "val/clean_acc"
                    if self.best is None or row[criterion] > self.best[criterion]:
                        self.best = row
                self.epoch = epoch + 1
                self._save(row)
                progress.end_epoch(row)
        return self._finish()

    def _train_epoch(self, epoch: int, progress: Progress) -> dict[str, float]:
        """One pass over the training split; ``epoch`` counts from 0."""
        seed_epoch(self.config.seed, epoch)
        total_steps = self.config.epochs * len(self.loader)
        meter = EpochMeter(self.device)
        progress.start_epoch(epoch + 1)
        self.loader.set_epoch(epoch)
        self.model.train()
        for step, batch in enumerate(self.loader, start=epoch * len(self.loader)):
            rate = learning_rate(self.config.optim, step, total_steps)
            self.optimizer.param_groups[0]["lr"] = rate
            objective = self.method.attack_loss(self.model, batch, epoch)
            x_adv = batch.x
            if objective is not None:
                with meter.attack():
                    x_adv = self.attack(batch.x, batch.y, index=batch.index, objective=objective, draw=epoch)
            terms = self.method(self.model, batch, x_adv, epoch)
            self.optimizer.zero_grad(set_to_none=True)
            terms.total.backward()
            self.optimizer.step()
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

    def _accuracies(self, split: str, steps: int) -> dict[str, float]:
        """``SPLIT/clean_acc`` and ``SPLIT/pgdSTEPS_acc``, in [0, 1]."""
        source, attack = getattr(self.splits, split), self.config.attack
        loader = data.ResidentLoader(
            source, self.config.eval.batch_size, shuffle=False, seed=0, device=self.device
        )
        climb = PGD(
            self.model,
            eps=attack.eps,
            step_size=attack.step_size,
            steps=steps,
            norm=attack.norm,
            seed=self.config.seed,
        )
        counts = evaluate(self.model, loader, climb)
        return {f"{split}/clean_acc": counts["clean_acc"], f"{split}/pgd{steps}_acc": counts["robust_acc"]}

    def _save(self, row: dict[str, Any]) -> None:
        """Record an epoch. The order matters: a crash between two files must lose none of them."""
        state = {
            "epoch": self.epoch,
            "best": self.best,
            "config": plain(self.config),
            "model": self.model.state_dict(),
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
        self.epoch, self.best = state["epoch"], state["best"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if hasattr(self.method, "load_state_dict"):
            self.method.load_state_dict(state["method"])
        restore_rng_state(state["rng"])

    def _finish(self) -> dict[str, Any]:
        """Test the best epoch and write everything that people read."""
        assert self.best is not None  # the last epoch is always validated
        self.model.load_state_dict(load_checkpoint(self.folder.best)["model"])
        rows = self.folder.rows()
        metrics = {name: value for name, value in self.best.items() if name.startswith(("val/", "train/"))}
        metrics |= self._accuracies("test", self.config.eval.test_steps)
        for name, pool in (("img_s", _mean), ("attack_ms", _mean), ("peak_mem_mib", max)):
            metrics[f"perf/{name}"] = pool([row[f"perf/{name}"] for row in rows])
        results = {
            "metrics": metrics,
            "config": plain(self.config),
            "versions": versions(self.device),
            "git": git_revision(),
            "seed": self.config.seed,
            "epoch": self.best["epoch"],
            "n_examples": {split: len(source) for split, source in self.splits._asdict().items()},
        }
        export_model(self.folder.model, self.model, self._metadata())
        self.folder.write_results(results)
        draw_curves(rows, self.best["epoch"], self.folder.curves)
        return results

    def _metadata(self) -> dict[str, str]:
        """How to build the model again and what it was trained for, as text; `load_run` reads it."""
        config, attack = plain(self.config), self.config.attack
        return {
            "bat_fast": __version__,
            **{name: str(value) for name, value in self.recipe.items()},
            "eps": str(attack.eps),
            "step_size": str(self.attack.step_size if attack.step_size is None else attack.step_size),
            "norm": attack.norm,
            "method": json.dumps(config["method"]),
            "data": json.dumps(config["data"]),
            "seed": str(self.config.seed),
        }


def _model_recipe(config: TrainConfig, source: Source) -> dict[str, Any]:
    """The arguments of `bat_fast.models.create`, but for mean and std, which the weights hold."""
    classes = source.num_classes if config.model.num_classes is None else config.model.num_classes
    if classes < source.num_classes:
        raise ValueError(
            f"model.num_classes is {classes}, but {config.data.name} has {source.num_classes} classes"
        )
    return {
        "arch": config.model.name,
        "num_classes": classes,
        "in_channels": source.images.shape[1],
        "image_size": source.images.shape[-1],
        "activation": config.model.activation,
    }


def _check(config: TrainConfig) -> None:
    least = {
        "epochs": (config.epochs, 1),
        "batch_size": (config.batch_size, 1),
        "seed": (config.seed, 0),
        "eval.batch_size": (config.eval.batch_size, 1),
        "eval.every": (config.eval.every, 1),
    }
    for name, (value, low) in least.items():
        if value < low:
            raise ValueError(f"{name} must be at least {low}, got {value}")
    if "name" not in config.method:
        raise ValueError("method.name is missing")


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
