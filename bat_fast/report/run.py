"""A run folder as a report takes it, finished or not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bat_fast.config import TrainConfig
from bat_fast.runs.examined import Examined
from bat_fast.runs.folder import RunFolder
from bat_fast.runs.metrics import attacks_on, metric
from bat_fast.runs.plain import plain
from bat_fast.runs.results import read_results


class Run(NamedTuple):
    """What a run folder holds, and what was measured of its model."""

    letter: str
    path: Path
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    results: dict[str, Any] | None
    """None where the run has not finished."""
    hashes: dict[str, str]
    """File -> SHA-256."""
    examined: Examined | None = None
    unmeasured: str | None = None
    """Why ``examined`` is None."""
    evaluations: tuple[dict[str, Any], ...] = ()
    """What ``bat-fast eval --out`` has found of its model."""
    samples: dict[str, Any] | None = None
    """``margin`` and ``q`` [epochs, n] of its training samples, where they were recorded."""

    @property
    def best(self) -> int | None:
        """The epoch that validation chose; None where the run has not finished."""
        return None if self.results is None else self.results.get("epoch")

    @property
    def metrics(self) -> dict[str, float]:
        """Those of ``results.json``; none where the run has not finished."""
        return {} if self.results is None else self.results["metrics"]

    @property
    def robust(self) -> str | None:
        """The attack of the test, such as ``pgd20``."""
        return next((one for one in attacks_on("test", self.metrics) if one != "clean"), None)

    @property
    def robust_acc(self) -> float | None:
        """Robust accuracy on the test split."""
        return None if self.robust is None else self.metrics[metric("test", self.robust)]

    def series(self, name: str) -> list[tuple[int, float]]:
        """(epoch, value) of a metric, at the epochs that have it."""
        return [(row["epoch"], row[name]) for row in self.rows if row.get(name) is not None]

    @property
    def val_robust(self) -> str | None:
        """The name of robust accuracy on validation."""
        known = dict.fromkeys(key for row in self.rows for key in row)
        found = [one for one in attacks_on("val", known) if one not in ("clean", "fgsm")]
        return metric("val", found[-1]) if found else None

    @property
    def measured(self) -> str:
        """The split that was measured in every epoch, whose metrics are called ``val/``."""
        return "validation" if self.config["eval"]["choose"] == "val" else "test"

    def overfitting(self) -> float | None:
        """By how much robust validation accuracy fell from its best epoch to the last; None without any."""
        values = [value for _, value in self.series(self.val_robust)] if self.val_robust else []
        return max(values) - values[-1] if values else None


def read_run(path: Path, letter: str) -> Run:
    """Read a run folder.

    Raises:
        FileNotFoundError: there is none. ValueError: a file of it is damaged; the message names it.
    """
    folder = RunFolder(path)
    if not folder.config.exists():
        raise FileNotFoundError(f"{path} is no run folder: there is no config.yaml in it")
    try:
        stored = yaml.safe_load(folder.config.read_text())
        rows = folder.rows()
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: config.yaml or metrics.jsonl is damaged ({error})") from error
    if not isinstance(stored, dict):
        raise ValueError(f"{folder.config} holds no settings")
    results = read_results(path) if folder.results.exists() else None
    files = [folder.config, folder.metrics, folder.results, folder.model]
    hashes = {file.name: _sha256(file) for file in files if file.exists()}
    return Run(letter, path, _completed(stored), rows, results, hashes)


def _completed(stored: dict[str, Any]) -> dict[str, Any]:
    """``stored`` settings, with the defaults of those that an older run did not know."""
    config = plain(TrainConfig()) | stored
    for name in ("attack", "optim", "eval"):
        config[name] = plain(TrainConfig())[name] | config[name]
    return config


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
