"""How often a study of the dynamics looks at its run: kept in the run folder, for when it goes on."""

from __future__ import annotations

import json
from pathlib import Path

from bat_fast._atomic import atomic_text
from bat_fast._seal import is_whole, sealed
from bat_fast.study.record import FOLDER

USUAL = {"judge_every": 1, "curvature": 10}
_FILE = "dynamics.json"


def pace_of(run: Path, asked: dict[str, int | None], *, resume: bool) -> dict[str, int]:
    """What was asked for; where nothing was, what the run has had so far, and `USUAL` of a new one.

    Args:
        run: the run folder.
        asked: ``judge_every`` and ``curvature``, None where the user said nothing.
        resume: whether that run goes on.

    Raises:
        ValueError: the run that goes on was begun with another pace, or its file is damaged.
    """
    file = run / FOLDER / _FILE
    before: dict[str, int] = {}
    if resume and file.exists():
        try:
            before = json.loads(file.read_text())
        except ValueError:
            before = {}
        if not is_whole(before):
            raise ValueError(f"{file} is damaged: put an intact copy in its place, or delete it")
    for name, value in asked.items():
        if value is not None and before.get(name, value) != value:
            raise ValueError(
                f"cannot resume {run}: --{name} was {before[name]} and is now {value}; leave it out, or "
                "start another run with --out"
            )
    said = {name: value for name, value in asked.items() if value is not None}
    return {name: said.get(name, before.get(name, usual)) for name, usual in USUAL.items()}


def keep_pace(run: Path, pace: dict[str, int]) -> None:
    """Write it for `pace_of`."""
    file = run / FOLDER / _FILE
    file.parent.mkdir(exist_ok=True)
    atomic_text(file, json.dumps(sealed(dict(pace))) + "\n")
