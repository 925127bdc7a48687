"""``bat-fast study complexity``."""

from __future__ import annotations

import json
from pathlib import Path

from bat_fast.cli.parser import Parser

SUMMARY = "norms, margins and flatness of trained models beside their robust gap"


def run(words: list[str]) -> None:
    """Measure finished runs, and print them side by side."""
    parser = Parser("study complexity", "Norms, margins and flatness of the models of finished runs.")
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="run folder")
    add("--images", type=int, default=512, help="training and test images to measure with (default: 512)")
    add("--draws", type=int, default=10, help="of the noise on the weights (default: 10)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    add("--json", action="store_true", help="print JSON")
    options = parser.parse_args(words)
    if options.images < 2 or options.draws < 1:
        raise ValueError("--images must be at least 2 and --draws at least 1")
    from bat_fast.cli.settings import read_run
    from bat_fast.runs.folder import finite, runs_of
    from bat_fast.study.subject import measure_complexity, read_subject

    found = {}
    for run in runs_of(options.runs):
        subject = read_subject(run, options.images, options.device)
        found[str(run)] = measure_complexity(read_run(run, []), subject, draws=options.draws)
    if options.json:
        print(json.dumps({path: finite(one) for path, one in found.items()}, indent=2))
        return
    for number, path in enumerate(found, 1):
        print(f"run {number}       {path}")
    for name in next(iter(found.values())):
        cells = (one[name] for one in found.values())
        print(f"{name:<26}" + "".join(f"{'-' if cell is None else f'{cell:.4g}':>14}" for cell in cells))
