"""``bat-fast report``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bat_fast.cli.parser import Parser

if TYPE_CHECKING:
    from bat_fast.report.run import Run

SUMMARY = "one HTML file about runs, to read and to send: bat-fast report runs/my-run"


def run(words: list[str]) -> None:
    """Examine the models of runs, and write a page about them."""
    parser = Parser(
        "report",
        "One HTML file about runs: verdict, curves, classes, confusions, examples, provenance. It needs no "
        "network. The models are attacked again on test images, in balls of several sizes.",
    )
    add = parser.add_argument
    add(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="run folder, also of a run that has not finished, or that of several --seeds",
    )
    add("--out", type=Path, help="HTML file (default: report.html in the run folder, or beside several)")
    add(
        "--images",
        type=int,
        default=1000,
        help="test images to attack, in 210 steps (default: 1000; 0: none)",
    )
    add(
        "--eval", nargs="+", type=Path, default=[], metavar="FILE.json",
        help="of bat-fast eval --out, about these runs: its security curve and AutoAttack are drawn too",
    )  # fmt: skip
    add("--batch_size", type=int, default=256, help="images at a time (default: 256)")
    add("--root", "--data.root", dest="root", help="folder of the data (default: that of the training)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    options = parser.parse_args(words)
    if options.images < 0 or options.batch_size < 1:
        raise ValueError("--images must be at least 0 and --batch_size at least 1")
    from bat_fast.report.compare import letters
    from bat_fast.report.judged import with_evaluations
    from bat_fast.report.page import write_page
    from bat_fast.report.run import read_run
    from bat_fast.runs.folder import runs_of

    paths = runs_of(options.runs)
    if len({path.resolve() for path in paths}) < len(paths):
        raise ValueError("a run is named twice: it counts once")
    first = options.runs[0]
    out = options.out or (first if len(options.runs) == 1 else first.parent) / "report.html"
    if out.is_dir():
        raise ValueError(f"--out takes a file, and {out} is a folder: --out {out / 'report.html'}")
    runs = [read_run(path, letters(number)) for number, path in enumerate(paths)]
    runs = [_recorded(one) for one in with_evaluations(runs, options.eval)]
    how = {"images": options.images, "batch_size": options.batch_size}
    how |= {"root": options.root, "device": options.device}
    size = write_page([_examined(one, **how) for one in runs], out, f"bat-fast report {shlex.join(words)}")
    print(f"report      {out} ({size / 1e6:.2f} MB)")


def _recorded(one: Run) -> Run:
    """The run with the record of its training samples, where there is a whole one."""
    from bat_fast.study.record import FOLDER, read_record

    if not (one.path / FOLDER).is_dir():
        return one
    try:
        return one._replace(samples=read_record(one.path)[2])
    except (ValueError, OSError) as error:  # the page is worth having without it
        print(f"WARNING: the samples of {one.path} are not shown: {' '.join(str(error).split())}", flush=True)
        return one


def _examined(one: Run, *, images: int, **how: Any) -> Run:
    """The run with what its model does, or with the reason why that is not known."""
    from bat_fast.evaluate.examine import examine
    from bat_fast.report.progress import counting

    if images == 0 or one.results is None:
        return one._replace(unmeasured="--images 0" if images == 0 else "the run has not finished")
    try:
        with counting(f"attacks on {one.path.name}") as tell:
            found = examine(one.path, images=images, steps=one.config["eval"]["test_steps"], tell=tell, **how)
    except (ValueError, OSError, ImportError) as error:  # the page is worth having without it
        reason = " ".join(str(error).split())
        print(f"WARNING: {one.path} is not examined: {reason}", flush=True)
        return one._replace(unmeasured=reason)
    return one._replace(examined=found)
