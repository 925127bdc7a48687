"""``bat-fast replay``."""

from __future__ import annotations

from pathlib import Path

from bat_fast.cli.parser import Parser

SUMMARY = "run the step again that ended in NaN, and show where: bat-fast replay runs/my-run"


def run(words: list[str]) -> None:
    """Print where in the step the first value appears that is not finite."""
    from bat_fast.cli.settings import read_run

    parser = Parser("replay", "Run the step again whose loss or gradient became NaN or infinite.")
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--all", action="store_true", help="every value of the step, not the bad ones alone")
    given = parser.parse_args(words)
    config = read_run(given.run, [])
    from bat_fast.report.replayed import print_replay
    from bat_fast.runs.folder import RunFolder
    from bat_fast.train.replay import replay

    print_replay(replay(RunFolder(given.run), config), everything=given.all)
