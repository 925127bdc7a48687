"""The folder of a memorisation study: its settings, and an answer for each model that is done."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from torch import nn

from bat_fast._atomic import atomic_text, writing
from bat_fast._lock import Lock
from bat_fast._seal import check_text, is_whole, sealed, sealed_text
from bat_fast.config import TrainConfig
from bat_fast.evaluate.attacks import make_attack
from bat_fast.runs.plain import check_same, plain
from bat_fast.study.sealed_arrays import Array, read_arrays, write_arrays

_FREE = ("k",)  # more models may be added: each depends on its own number alone
# A run goes on with its weights whatever these are; a model of a study begins anew, and would be another.
_FIXED = ("epochs", "model.init", "optim.on_nonfinite")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study trains.

    Raises:
        ValueError: a number is out of range.
    """

    k: int
    """Number of models."""
    ratio: float
    """Share of the training samples that each of them sees."""
    attack: str | None
    """That judges them, such as ``pgd10``; None judges clean images alone."""
    seed: int
    """Of subsets and models."""

    def __post_init__(self) -> None:
        if self.k < 2:
            raise ValueError(f"--k must be at least 2, got {self.k}: a difference needs models of both kinds")
        if not 0 < self.ratio < 1:
            raise ValueError(f"--ratio must be in (0, 1), got {self.ratio:g}: 0.7 is usual")
        if self.attack is not None:
            try:
                make_attack(self.attack, nn.Identity())
            except ValueError as error:
                raise ValueError(f"--attack: {error}") from None


class Status(NamedTuple):
    """Numbers of the models, by what became of them."""

    done: list[int]
    running: list[int]
    open: list[int]


class StudyFolder:
    """``config.yaml`` and ``study.json``, which say what is trained, and ``models/0007.npz``, what model 7
    gets right; ``models/0007.lock`` while a process trains it.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self.plan, self.models = path / "config.yaml", path / "study.json", path / "models"
        self.scores = path / "memorisation.npz"

    def open(self, plan: Plan, config: TrainConfig) -> None:
        """Begin a study, or go on with the one that is there, which may get more models.

        Raises:
            FileExistsError: something else is there. ValueError: the study there has other settings.
        """
        if not self.plan.exists() and self.path.exists() and any(self.path.iterdir()):
            raise FileExistsError(f"{self.path} is not empty and holds no study: give another --out")
        if self.plan.exists():
            self.check(plan, config)
        with writing(self.path, "give another folder with --out"):
            self.models.mkdir(parents=True, exist_ok=True)
        if not self.config.exists():
            atomic_text(self.config, sealed_text(yaml.safe_dump(plain(config), sort_keys=False)))
        if not self.plan.exists() or self.read_plan() != plan:
            atomic_text(self.plan, json.dumps(sealed(dict(vars(plan))), indent=2) + "\n")

    def check(self, plan: Plan, config: TrainConfig) -> None:
        """Raise ValueError where the study that is there has other settings, of which it names one."""
        before = self.read_plan()
        for name, value in vars(plan).items():
            if name not in _FREE and getattr(before, name) != value:
                raise ValueError(
                    f"{self.path} is a study with {name} {getattr(before, name)}, and {value} was asked "
                    "for: leave it as it was, or give another --out"
                )
        check_text(self.config)
        check_same(yaml.safe_load(self.config.read_text()), plain(config), self.path, _FIXED)

    def read_plan(self) -> Plan:
        """What the study trains.

        Raises:
            FileNotFoundError: there is no study. ValueError: its file is damaged.
        """
        if not self.plan.exists():
            raise FileNotFoundError(f"{self.path} is no folder of a study: there is no study.json in it")
        try:
            stored: dict[str, Any] = json.loads(self.plan.read_text())
        except ValueError:
            stored = {}
        if not is_whole(stored):
            raise ValueError(f"{self.plan} is damaged: put an intact copy in its place")
        return Plan(**{name: stored[name] for name in Plan.__dataclass_fields__})

    def answer(self, job: int) -> Path:
        """The file of model ``job``."""
        return self.models / f"{job:04}.npz"

    def lock(self, job: int) -> Lock:
        """Held by the process that trains model ``job``."""
        return Lock(self.models / f"{job:04}.lock", f"model {job} of {self.path}")

    def status(self) -> Status:
        """Which models are done, which are trained somewhere, which are left."""
        jobs = range(self.read_plan().k)
        done = [job for job in jobs if self.answer(job).exists()]
        left = sorted(set(jobs) - set(done))
        running = [job for job in left if self._is_running(job)]
        return Status(done, running, sorted(set(left) - set(running)))

    def _is_running(self, job: int) -> bool:
        """Whether a process trains model ``job``; the lock of one that has died is taken away."""
        lock = self.lock(job)
        if not lock.path.exists():
            return False
        try:
            lock.take()
        except BlockingIOError:
            return True
        lock.end()
        return False

    def write_answer(self, job: int, arrays: dict[str, Array]) -> None:
        """Keep what model ``job`` gets right."""
        write_arrays(self.answer(job), arrays)

    def answers(self) -> dict[str, Array]:
        """The packed bits of all models that are done, by name: [models, bytes] uint8, in order of the jobs.

        Raises:
            ValueError: no model is done, or a file is damaged or of another study.
        """
        files = [read_arrays(self.answer(job)) for job in self.status().done]
        if not files:
            raise ValueError(f"{self.path}: no model is trained yet")
        shapes = {name: array.shape for name, array in files[0].items()}
        for job, file in zip(self.status().done, files, strict=False):
            if {name: array.shape for name, array in file.items()} != shapes:
                raise ValueError(f"{self.answer(job)} is of another study: delete it, and it is made again")
        return {name: np.stack([file[name] for file in files]) for name in shapes}
