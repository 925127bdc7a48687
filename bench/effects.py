"""What each choice of protocol is worth in which published code differs from the recipes here, on the digits.

    python bench/effects.py                 every run that is missing, then the table
    python bench/effects.py --table         only the table of the runs there are
    python bench/effects.py --seeds 0 1     some of the runs

A choice is a change of one recipe. Both are trained with the same seeds, so their difference is paired: first
weights, the order of the images and the noise are the same. Accuracies are those of the last epoch on the 359
test images, except where the choice is the epoch itself. One JSON line per run; an interrupted study goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from bat_fast.cli.settings import read_command
from bat_fast.measure.timing import machine
from bat_fast.report.intervals import mean_of
from bat_fast.train import Trainer

EPOCHS = 20
LAST = {"eval.every": EPOCHS}
"""One validation, after the last epoch: that epoch is tested."""


class Choice(NamedTuple):
    """A change, and what it is compared with."""

    what: str
    recipe: str
    change: dict[str, Any]
    base: dict[str, Any] = LAST


TRAIN_MODE = LAST | {"attack.bn_mode": "train"}
CHOICES = (
    Choice("TRADES: clean images counted twice", "digits-trades", LAST | {"method.third_pass": "true"}),
    Choice("FGSM-RS: pass of the attack counted", "digits-fgsm-rs", LAST | {"attack.bn_updates": "true"}),
    Choice(
        "FGSM-RS: rate peaks at half, momentum 0.9, 0.8, 0.9",
        "digits-fgsm-rs",
        LAST | {"optim.peak": 0.5, "optim.momentum_low": 0.8},
    ),
    Choice("TRADES: start not cut to [0, 1]", "digits-trades", LAST | {"attack.clip_start": "false"}),
    Choice(
        "PGD-AT without validation: best epoch on test, not the last",
        "digits-pgd-at",
        {"eval.choose": "test"},
        {"eval.choose": "last"},
    ),
    Choice("PGD-AT: best epoch on validation, not the last", "digits-pgd-at", {"eval.choose": "val"}),
    Choice("PGD-AT: start not cut to [0, 1]", "digits-pgd-at", LAST | {"attack.clip_start": "false"}),
    Choice("N-FGSM: pass of the attack counted", "digits-n-fgsm", LAST | {"attack.bn_updates": "true"}),
    Choice(
        "PGD-AT in train mode: passes of the attack counted",
        "digits-pgd-at",
        TRAIN_MODE | {"attack.bn_updates": "true"},
        TRAIN_MODE,
    ),
)
COLUMNS = {"clean": "test/clean_acc", "pgd20": "test/pgd20_acc"}


def key(recipe: str, changes: dict[str, Any]) -> str:
    """How a run is called in the file."""
    return " ".join([recipe, *(f"{name}={value}" for name, value in changes.items())])


def run(recipe: str, changes: dict[str, Any], seed: int) -> dict[str, float]:
    """Train once; the accuracies of the epoch that counts."""
    words = ["--recipe", recipe, "--device", "cpu", "--seed", str(seed), "--epochs", str(EPOCHS)]
    for name, value in changes.items():
        words += [f"--{name}", str(value)]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        metrics = Trainer(read_command(words).config, Path(folder) / "run", progress=False).fit()["metrics"]
    return {name: metrics[metric] for name, metric in COLUMNS.items()}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: every choice, the accuracies without it, and the paired differences that it makes."""
    found = {(row["run"], row["seed"]): row for row in rows}
    lines = ["| choice | seeds | clean | PGD-20 | clean, points | PGD-20, points |", "|---" * 6 + "|"]
    for choice in CHOICES:
        names = [key(choice.recipe, changes) for changes in (choice.base, choice.change)]
        seeds = [s for name, s in found if name == names[0] and (names[1], s) in found]
        if len(seeds) < 2:
            continue
        cells = [choice.what, str(len(seeds))]
        pairs = [[found[name, seed] for name in names] for seed in seeds]
        cells += [f"{100 * mean_of([base[c] for base, _ in pairs]).value:.1f}" for c in COLUMNS]
        for column in COLUMNS:
            mean = mean_of([100 * (other[column] - base[column]) for base, other in pairs])
            cells.append(f"{mean.value:+.2f} ± {mean.half_width:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, choice by choice, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "effects.jsonl")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    rows = [json.loads(line) for line in lines]
    arms = {key(c.recipe, arm): (c.recipe, arm) for c in CHOICES for arm in (c.base, c.change)}
    have = {(row["run"], row["seed"]) for row in rows}
    for name, (recipe, changes) in arms.items():
        for seed in options.seeds:
            if not options.table and (name, seed) not in have:
                rows.append({"run": name, "seed": seed, **run(recipe, changes, seed)})
                print(name, seed, flush=True)
                with options.out.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print(f"{len(rows)} runs of {EPOCHS} epochs; {machine()}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
