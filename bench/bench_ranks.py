"""Several processes against one: differences of every method in float64, and the time of an epoch.

python bench/bench_ranks.py [--ranks 2 3 4] [--recipe digits-bat]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "train")]


def launch(size: int, *words: str) -> None:
    """Run ``python WORDS`` in ``size`` processes; what they end with is of no interest here."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(size)]
    environ = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = (
        [*torchrun, "--master-port", str(29700 + size), *words] if size > 1 else [sys.executable, *words]
    )
    subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, check=False)


def differences(sizes: list[int]) -> None:
    """Print the largest difference of weights, adversarial images, metrics and memories, by method."""
    import ranks
    import torch

    from bat_fast.world.ranks import ALONE

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = {}
        for size in sizes:
            (folder / str(size)).mkdir()
            launch(size, "tests/train/ranks.py", str(folder / str(size)))
            found[size] = torch.load(folder / str(size) / f"{size}.pt")
    print("| method | " + " | ".join(f"{size} ranks" for size in sizes) + " |")
    print("|---|" + "---|" * len(sizes))
    for case in ranks.CASES:
        one = ranks.train(case, ALONE)
        cells = (f"{ranks.difference(one, found[size][case]):.1e}" for size in sizes)
        print(f"| {case} | " + " | ".join(cells) + " |")
    one = ranks.train("bat", ALONE)
    cells = (f"{ranks.difference(one, found[size]['local']):.1e}" for size in sizes)
    print("| bat, local batch norm | " + " | ".join(cells) + " |")


def epochs(sizes: list[int], recipe: str) -> None:
    """Print the seconds of an epoch, the median of the last four of five, without validation."""
    for size in (1, *sizes):
        with tempfile.TemporaryDirectory() as folder:
            words = ["-m", "bat_fast", "train", "--recipe", recipe, "--epochs", "5", "--device", "cpu"]
            launch(size, *words, "--out", f"{folder}/run", "--eval.every", "5")
            lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
        seconds = sorted(json.loads(line)["perf/epoch_s"] for line in lines[1:])
        print(
            f"{recipe}, {size} ranks, a thread each: {(seconds[1] + seconds[2]) / 2:.2f} s an epoch",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--recipe", default="digits-bat")
    asked = parser.parse_args()
    differences(asked.ranks)
    epochs(asked.ranks, asked.recipe)
