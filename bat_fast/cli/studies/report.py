"""``bat-fast study report``."""

from __future__ import annotations

import shlex
from pathlib import Path

from bat_fast.cli.parser import Parser

SUMMARY = "one HTML file about a study of memorisation and recorded runs"


def run(words: list[str]) -> None:
    """Write the page."""
    parser = Parser(
        "study report",
        "One HTML file: who is memorised, what recorded runs do with typical and atypical samples by epoch, "
        "whom BAT weighs down, and what leaving samples out did. It needs no network.",
    )
    add = parser.add_argument
    add("study", type=Path, metavar="STUDY", help="folder of bat-fast study memorisation")
    add("runs", type=Path, nargs="*", metavar="RUN", help="recorded runs (bat-fast study dynamics)")
    add("--kind", choices=("clean", "robust"), default="robust", help="of memorisation (default: robust)")
    add("--out", type=Path, help="HTML file (default: report.html in the folder of the study)")
    options = parser.parse_args(words)
    out = options.out or options.study / "report.html"
    if out.is_dir():
        raise ValueError(f"--out takes a file, and {out} is a folder: --out {out / 'report.html'}")
    from bat_fast.cli.settings import read_command
    from bat_fast.report.page import save
    from bat_fast.study.folder import StudyFolder
    from bat_fast.study.jobs import read_splits
    from bat_fast.study.page import render

    study = StudyFolder(options.study)
    study.read_plan()
    config = read_command(["--config", str(study.config), "--out", str(study.path)]).config
    command = f"bat-fast study report {shlex.join(words)}"
    text = render(study, config, read_splits(config), options.runs, options.kind, command)
    print(f"report      {out} ({save(text, out) / 1e6:.2f} MB)")
