"""The folder of a run: what is in it, and how it survives a crash."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bat_fast._atomic import atomic_text
from bat_fast.config import TrainConfig, settled
from bat_fast.ratio import Ratio

if TYPE_CHECKING:
    from torch import Tensor


def plain(config: TrainConfig) -> dict[str, Any]:
    """``config`` as YAML and JSON can hold it; fractions stay text (``8/255``)."""
    return {name: _plain(value) for name, value in asdict(config).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Ratio):
        return value.text if "/" in value.text else float(value)
    return value


_FREE = (  # may change when a run is resumed
    "epochs",
    "device",
    "checkpoint_every",
    "data.root",
    "data.workers",
    "data.loader",
    "eval.batch_size",
    "model.init",
    "optim.grad_checkpointing",
)


class RunFolder:
    """``config.yaml``, ``classes.txt``, ``metrics.jsonl``, ``results.json``, ``model.safetensors``,
    ``curves.png``, ``checkpoints/best.pt`` and ``checkpoints/last.pt`` under one path; and
    ``label_noise.csv`` where labels are wrong on purpose.

    Args:
        path: the folder.
        numbered: where `open` finds the folder taken, it takes the next free of PATH-2, PATH-3, ...
    """

    def __init__(self, path: Path, *, numbered: bool = False) -> None:
        self._numbered = numbered
        self._name_files(path)

    def _name_files(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.results = path / "results.json"
        self.model = path / "model.safetensors"
        self.curves = path / "curves.png"
        self.classes = path / "classes.txt"
        self.labels = path / "label_noise.csv"
        self.best = path / "checkpoints" / "best.pt"
        self.last = path / "checkpoints" / "last.pt"

    @staticmethod
    def default_path(name: str, seed: int | None = 0) -> Path:
        """``runs/NAME-DATE-TIME-sSEED``; without the seed for None, where there are several."""
        end = "" if seed is None else f"-s{seed}"
        return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}{end}"

    def open(self, config: TrainConfig, *, resume: bool) -> None:
        """Create the folder for a new run, or accept the one of the run to resume.

        Raises:
            FileExistsError: something is there already and ``resume`` is off.
            ValueError: the run there was started with another configuration; the number of epochs may differ,
            which `Trainer` looks at.
        """
        if self._numbered and not resume:
            self._claim()
        self.check_free(resume=resume)
        self.best.parent.mkdir(parents=True, exist_ok=True)
        if self.config.exists():
            check_same(yaml.safe_load(self.config.read_text()), plain(config), self.path)
        else:
            self.write_config(config)

    def check_free(self, *, resume: bool = False) -> None:
        """Raise FileExistsError where a file is in the way, or, without ``resume``, another run."""
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"{self.path} is a file; give another folder with --out")
        if not resume and self.path.exists() and any(self.path.iterdir()):
            raise FileExistsError(
                f"{self.path} is not empty; continue that run with --resume, "
                "or give another folder with --out"
            )

    def is_finished(self, config: TrainConfig) -> bool:
        """Whether there are results of ``config`` with as many epochs.

        Raises:
            ValueError: there are results of other settings.
        """
        if not self.results.exists():
            return False
        stored, asked = json.loads(self.results.read_text())["config"], plain(settled(config))
        check_same(stored, asked, self.path)
        return bool(stored["epochs"] == asked["epochs"])

    def write_config(self, config: TrainConfig) -> None:
        """Write ``config.yaml``."""
        atomic_text(self.config, yaml.safe_dump(plain(config), sort_keys=False))

    def _claim(self) -> None:
        """Take the first free number; mkdir decides between runs that begin at the same moment."""
        for number in count(1):
            path = self.path if number == 1 else self.path.with_name(f"{self.path.name}-{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            self._name_files(path)
            self._numbered = False
            return

    def rows(self) -> list[dict[str, Any]]:
        """The complete lines of ``metrics.jsonl``, one per epoch."""
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_bytes().split(b"\n")[:-1]  # the last piece has no line end: partial
        return [json.loads(line) for line in lines]

    def truncate(self, epochs: int) -> None:
        """Keep the lines of the first ``epochs`` epochs; the rest is about to be trained again."""
        kept = [row for row in self.rows() if row["epoch"] <= epochs]
        text = "".join(_line(row) for row in kept)
        atomic_text(self.metrics, text)

    def append(self, row: dict[str, Any]) -> None:
        """Add the line of one epoch and wait until it is on the disk."""
        with self.metrics.open("a") as file:
            file.write(_line(row))
            file.flush()
            os.fsync(file.fileno())

    def write_classes(self, names: tuple[str, ...]) -> None:
        """Write ``classes.txt``: the name of class 0 in the first line, and so on."""
        text = "".join(f"{name}\n" for name in names)
        atomic_text(self.classes, text)

    def write_labels(self, index: Tensor, true: Tensor | None, labels: Tensor) -> None:
        """Write ``label_noise.csv``: id, true and given label of every training sample; nothing for None."""
        if true is None:
            return
        rows = zip(index.tolist(), true.tolist(), labels.tolist(), strict=True)
        text = "index,true,given\n" + "".join(f"{i},{before},{after}\n" for i, before, after in rows)
        atomic_text(self.labels, text)

    def write_results(self, results: dict[str, Any]) -> None:
        """Write ``results.json``."""
        text = json.dumps(results, indent=2, allow_nan=False) + "\n"
        atomic_text(self.results, text)


def check_same(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Raise ValueError naming the first setting in which the two differ, but for what changes no result.

    A setting that an older run did not know had the value that is now its default.
    """
    old, new = flat(plain(TrainConfig())) | flat(before), flat(now)
    for key in [*new, *(key for key in old if key not in new)]:
        if key not in _FREE and old.get(key) != new.get(key):
            raise ValueError(
                f"cannot resume {folder}: {key} was {old.get(key)!r} and is now {new.get(key)!r}; "
                "resume with the same settings, or start another run with --out"
            )


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return found


def _line(row: dict[str, Any]) -> str:
    """One line of JSON, which has no NaN: such a number becomes null."""
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
    return json.dumps(finite, allow_nan=False) + "\n"
