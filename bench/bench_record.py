"""What recording every sample costs: processor time of the observer beside that of the training it watches.

``python bench/bench_record.py --recipe digits-pgd-at`` trains twelve epochs on one thread and times every
call of the observer by the thread's own clock, so that other programs do not count. Printed: its share of an
epoch, validation included, during the steps and at the end, where the file is written.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from bat_fast.cli.settings import read_command
from bat_fast.study.record import SampleRecord
from bat_fast.train import Trainer


class Timed(SampleRecord):
    """The record, and the seconds that it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.rows, self.began = 0.0, [], time.thread_time()

    def step(self, batch, terms, epoch):
        began = time.thread_time()
        super().step(batch, terms, epoch)
        self.steps += time.thread_time() - began

    def epoch(self, row):
        began = time.thread_time()
        super().epoch(row)
        now = time.thread_time()
        self.rows.append((self.steps, now - began, now - self.began))
        self.steps, self.began = 0.0, time.thread_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="digits-pgd-at")
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    words = ["--recipe", options.recipe, "--epochs", str(options.epochs), "--device", "cpu"]
    config, record = read_command(words).config, Timed()
    with tempfile.TemporaryDirectory() as folder:
        Trainer(config, Path(folder) / "run", progress=False, observers=[record]).fit()
    rows = record.rows[1:]  # the first epoch builds things
    steps, file = (median(row[place] / row[2] for row in rows) for place in (0, 1))
    seconds = median(row[2] for row in rows)
    print(f"{options.recipe}: epoch {seconds:.2f} s; steps {steps:.2%}, file {file:.2%} of it")


if __name__ == "__main__":
    main()
