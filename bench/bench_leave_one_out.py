"""Memorisation by subsets against what it estimates: training again without one sample.

``python bench/bench_leave_one_out.py STUDY --samples 30 --seeds 20`` takes samples that are spread evenly
over the ranks of memorisation, trains with and without each of them, and prints the rank correlation of both
values with its interval. Trained models are kept in ``STUDY/without``, so that it may be stopped and go on.

Subsets of 70 % are smaller than the set that one sample is missing from, which moves the values: a sample is
memorised more where fewer others are like it. What the correlation is, is the result.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bat_fast.cli.settings import read_command
from bat_fast.study.folder import StudyFolder
from bat_fast.study.groups import read_groups
from bat_fast.study.jobs import read_splits
from bat_fast.study.lean import answers
from bat_fast.study.rank import spearman
from bat_fast.study.sealed_arrays import read_arrays, write_arrays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--samples", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--kind", choices=("clean", "robust"), default="robust")
    options = parser.parse_args()
    study = StudyFolder(options.study)
    config = read_command(["--config", str(study.config), "--out", str(study.path)]).config
    splits, groups = read_splits(config), read_groups(study, options.kind)
    order = np.argsort(groups.mem, kind="stable")
    places = order[np.linspace(0, len(order) - 1, options.samples).astype(int)]
    folder = study.path / "without"
    folder.mkdir(exist_ok=True)

    def right(left_out: int | None, seed: int) -> np.ndarray:
        """Which training samples a model without one of them gets right, [n] bool."""
        file = folder / f"{'none' if left_out is None else left_out}-{seed}.npz"
        if not file.exists():
            keep = np.delete(np.arange(len(splits.train)), [] if left_out is None else [left_out])
            some = splits._replace(train=splits.train.part(torch.from_numpy(keep)))
            one = replace(config, seed=seed)
            write_arrays(
                file, answers(one, some, study.read_plan().attack, config.device, whole=splits.train)
            )
            print(f"trained {file.name}", flush=True)
        bits = read_arrays(file)[f"train_{options.kind}"]
        return np.unpackbits(bits, count=len(splits.train)).astype(bool)

    values = np.zeros(len(places))
    for seed in range(options.seeds):
        whole = right(None, seed)
        for row, place in enumerate(places.tolist()):
            values[row] += (int(whole[place]) - int(right(place, seed)[place])) / options.seeds
    for place, value in zip(places.tolist(), values, strict=True):
        print(f"sample {groups.train_ids[place]}: subsets {groups.mem[place]:+.2f}, left out {value:+.2f}")
    found = spearman(groups.mem[places], values)
    difference = float((values - groups.mem[places]).mean())
    print(
        f"{options.kind}: rank correlation {found.value:.2f} [{found.low:.2f}, {found.high:.2f}] over "
        f"{options.samples} samples x {options.seeds} seeds; mean difference {difference:+.3f}"
    )


if __name__ == "__main__":
    main()
