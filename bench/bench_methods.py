"""Every method on the digits, by its shipped recipe: accuracy and cost in one table.

    python bench/bench_methods.py             all digits recipes, seed 0
    python bench/bench_methods.py --seed 1

Clean and PGD-20 accuracy are those of the test split (359 images: +-2 points are chance) at the epoch chosen
on validation. Seconds per epoch are those of training alone, median over the epochs of the run; "x standard"
divides by those of digits-standard in the same run. An epoch of free makes 8 updates per batch.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
from pathlib import Path

from timing import machine

from bat_fast.config import recipes
from bat_fast.train import Trainer
from bat_fast.train.settings import read_command


def run(name: str, seed: int) -> tuple[float, float, float, int, float]:
    """Clean accuracy, PGD-20 accuracy, seconds per epoch, epochs, seconds of the whole training."""
    words = ["--recipe", name, "--seed", str(seed), "--device", "cpu", "--out", "unused"]
    config = read_command(words).config
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer = Trainer(config, Path(folder) / "run", progress=False)
        metrics = trainer.fit()["metrics"]
        seconds = [trainer.loader.num_samples / row["perf/img_s"] for row in trainer.folder.rows()]
    epoch = statistics.median(seconds)
    return metrics["test/clean_acc"], metrics["test/pgd20_acc"], epoch, len(seconds), sum(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    names = [name for name in recipes() if name.startswith("digits-")]
    names.sort(key=lambda name: name != "digits-standard")
    print(f"seed {seed}; {machine()}\n")
    print("| recipe | clean | PGD-20 | s/epoch | x standard | epochs | s in all |")
    print("|---|---|---|---|---|---|---|")
    base = None
    for name in names:
        clean, robust, epoch, epochs, total = run(name, seed)
        base = base or epoch
        cells = f"{clean:.1%} | {robust:.1%} | {epoch:.3f} | {epoch / base:.1f} | {epochs} | {total:.0f}"
        print(f"| {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
