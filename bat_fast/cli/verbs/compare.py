"""``bat-fast compare``."""

from __future__ import annotations

import json
from pathlib import Path

from bat_fast.cli.parser import Parser

SUMMARY = "runs side by side, with intervals over seeds: bat-fast compare runs/a runs/b"


def run(words: list[str]) -> None:
    """Print a table of finished runs, those together that differ by the seed alone."""
    parser = Parser(
        "compare", "Finished runs side by side; those that differ by the seed alone are averaged."
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folder, or that of several --seeds"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, accuracies in [0, 1]")
    options = parser.parse_args(words)
    from bat_fast.report.compare import comparison, group_runs, print_comparison
    from bat_fast.runs.folder import runs_of

    groups = group_runs(runs_of(options.runs))
    if options.json:
        print(json.dumps(comparison(groups), indent=2))
    else:
        print_comparison(groups)
