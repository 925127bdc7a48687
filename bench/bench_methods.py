"""Every method on the digits, by its shipped recipe: accuracy and cost in one table.

    python bench/bench_methods.py                  all digits recipes, seeds 0, 1 and 2
    python bench/bench_methods.py --seeds 0

Clean and PGD-20 accuracy are those of the test split at the epoch chosen on validation, mean over the seeds
and range; a seed also draws its own split, and +-2 points of its 359 test images are chance. Seconds per
epoch are those of training alone, median over the epochs of all runs; "x standard" divides by those of
digits-standard, which trains once beside every other recipe. An epoch of free makes 8 updates per batch.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
from pathlib import Path
from typing import NamedTuple

from bat_fast.cli.settings import read_command
from bat_fast.config import recipes
from bat_fast.measure.timing import machine
from bat_fast.train import Trainer

BASE = "digits-standard"


class Run(NamedTuple):
    """Accuracies in [0, 1], and the seconds of each epoch."""

    clean: float
    robust: float
    seconds: list[float]


def run(name: str, seed: int) -> Run:
    """Train a recipe."""
    words = ["--recipe", name, "--seed", str(seed), "--device", "cpu", "--out", "unused"]
    config = read_command(words).config
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer = Trainer(config, Path(folder) / "run", progress=False)
        metrics = trainer.fit()["metrics"]
        seconds = [trainer.loader.num_samples / row["perf/img_s"] for row in trainer.folder.rows()]
    return Run(metrics["test/clean_acc"], metrics["test/pgd20_acc"], seconds)


def row(name: str, runs: list[Run], base: list[Run]) -> str:
    """A line of the table."""

    def accuracy(values: list[float]) -> str:
        mean, low, high = (100 * f(values) for f in (statistics.mean, min, max))
        return f"{mean:.1f} ({low:.1f} to {high:.1f})"

    epoch, standard = (statistics.median(s for run in some for s in run.seconds) for some in (runs, base))
    cells = [accuracy([run.clean for run in runs]), accuracy([run.robust for run in runs])]
    cells += [f"{epoch:.3f}", f"{epoch / standard:.1f}", str(len(runs[0].seconds))]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    print(f"seeds {seeds}; {machine()}\n")
    print("| recipe | clean, % | PGD-20, % | s/epoch | x standard | epochs |\n|---|---|---|---|---|---|")
    for name in sorted((name for name in recipes() if name.startswith("digits-")), key=lambda n: n != BASE):
        base = [run(BASE, seed) for seed in seeds]
        print(row(name, base if name == BASE else [run(name, seed) for seed in seeds], base), flush=True)


if __name__ == "__main__":
    main()
