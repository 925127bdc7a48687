"""The folder of a run: what is in it, and how it survives a crash."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bat_fast._atomic import atomic_copy, atomic_text, writing
from bat_fast._lock import Lock
from bat_fast._seal import check_regular, check_text, sealed_text
from bat_fast.config import TrainConfig, settled
from bat_fast.runs.plain import check_same, plain

if TYPE_CHECKING:
    from torch import Tensor

_ELSEWHERE = "give another folder with --out"


class RunFolder:
    """``config.yaml``, ``classes.txt``, ``metrics.jsonl``, ``results.json``, ``model.safetensors``,
    ``curves.png``, ``checkpoints/best.pt`` and ``checkpoints/last.pt`` under one path, with
    ``checkpoints/last-2.pt`` and so on, which were ``last.pt`` before; ``checkpoints/nonfinite.pt``, the
    batch of a NaN; ``checkpoints/test``, what the final test has found until it ends; and ``label_noise.csv``
    where labels are wrong on purpose.

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
        self.nonfinite = path / "checkpoints" / "nonfinite.pt"
        self.tested = path / "checkpoints" / "test"
        self.lock = Lock(path / ".lock", str(path))

    @staticmethod
    def default_path(name: str, seed: int | None = 0) -> Path:
        """``runs/NAME-DATE-TIME-sSEED``; without the seed for None, where there are several."""
        end = "" if seed is None else f"-s{seed}"
        return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}{end}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else writes to the folder inside ``with``, nor until ``lock.end()`` if all went well."""
        if self.path.is_dir() and not self._numbered:
            self.lock.take()
        try:
            yield
        except BaseException:
            self.lock.end()
            raise

    def open(self, config: TrainConfig, *, resume: bool) -> None:
        """Create the folder for a new run, or accept the one of the run to resume; inside `held`.

        Raises:
            BlockingIOError: another process writes to it.
            FileExistsError: something is there already and ``resume`` is off.
            ValueError: the run there was started with another configuration; the number of epochs may differ,
            which `Trainer` looks at.
        """
        if self._numbered and not resume:
            self._claim()
        self.check_free(resume=resume)
        with writing(self.path, _ELSEWHERE):
            self.best.parent.mkdir(parents=True, exist_ok=True)
        self.lock.take()
        for draft in self.path.rglob(".*.tmp"):
            draft.unlink()  # of a run that was killed while it wrote
        if self.config.exists():
            check_text(self.config)
            check_same(yaml.safe_load(self.config.read_text()), plain(config), self.path)
        else:
            self.write_config(config)

    def check_free(self, *, resume: bool = False) -> None:
        """Raise FileExistsError where a file is in the way, or, without ``resume``, another run."""
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"{self.path} is a file; give another folder with --out")
        if not resume and self.path.exists() and set(self.path.iterdir()) - {self.lock.path}:
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
        atomic_text(self.config, sealed_text(yaml.safe_dump(plain(config), sort_keys=False)))

    def _claim(self) -> None:
        """Take the first free number; mkdir decides between runs that begin at the same moment."""
        for number in count(1):
            path = self.path if number == 1 else self.path.with_name(f"{self.path.name}-{number}")
            with writing(path, _ELSEWHERE):
                try:
                    path.mkdir(parents=True)
                except FileExistsError:
                    continue
            self._name_files(path)
            self._numbered = False
            return

    def rows(self) -> list[dict[str, Any]]:
        """The complete lines of ``metrics.jsonl``, one per epoch.

        Raises:
            ValueError: the lines are not those of the epochs 1, 2, ...
        """
        if not self.metrics.exists():
            return []
        check_regular(self.metrics)
        lines = self.metrics.read_bytes().split(b"\n")[:-1]  # the last piece has no line end: partial
        found = []
        for number, text in enumerate(lines, 1):
            try:
                row = json.loads(text)
            except ValueError:
                row = None
            if not isinstance(row, dict) or row.get("epoch") != number:
                raise ValueError(
                    f"{self.metrics}: line {number} is not that of epoch {number}; put an intact copy in its "
                    "place"
                )
            found.append(row)
        return found

    def write_rows(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write ``metrics.jsonl`` anew."""
        atomic_text(self.metrics, "".join(map(line_of, rows)))

    def earlier(self) -> list[Path]:
        """What was ``last.pt`` before, the newest first: ``last-2.pt``, ``last-3.pt``, ..."""
        there = self.last.parent.glob("last-*.pt")
        found = {int(path.stem[5:]): path for path in there if path.stem[5:].isdecimal()}
        return [found[number] for number in sorted(found)]

    def make_room(self, keep: int) -> None:
        """Give ``last.pt`` its next name too, before it is replaced, so that ``keep`` of them are there."""
        names = [self.last, *(self.last.with_name(f"last-{number}.pt") for number in range(2, keep + 1))]
        for newer, older in reversed(list(pairwise(names))):
            if newer.exists():
                atomic_copy(newer, older)
        for path in self.earlier():
            if path not in names:
                path.unlink()

    def append(self, row: dict[str, Any]) -> None:
        """Add the line of one epoch and wait until it is on the disk."""
        with writing(self.metrics), self.metrics.open("a") as file:
            file.write(line_of(row))
            file.flush()
            os.fsync(file.fileno())

    def write_classes(self, names: tuple[str, ...]) -> None:
        """Write ``classes.txt``: the name of class 0 in the first line, and so on.

        What would end a line, or steer a terminal, is written as Python writes it, ``\\n``.
        """
        text = "".join(f"{in_one_line(name)}\n" for name in names)
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


def runs_of(paths: Iterable[Path]) -> list[Path]:
    """``paths``, and in place of a folder that ``train --seeds`` has made its runs, in order of the seeds."""
    found: list[Path] = []
    for path in paths:
        there = [] if (path / "config.yaml").exists() else list(path.glob("seed-*/config.yaml"))
        seeds = sorted((file.parent for file in there), key=lambda run: (len(run.name), run.name))
        found += seeds or [path]
    return found


def in_one_line(name: str) -> str:
    """``name``, which may be that of any folder, without characters that do something."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def finite(row: dict[str, Any]) -> dict[str, Any]:
    """``row`` with None in place of what JSON does not have: NaN and Inf."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }


def line_of(row: dict[str, Any]) -> str:
    """One line of ``metrics.jsonl``."""
    return json.dumps(finite(row), allow_nan=False) + "\n"
