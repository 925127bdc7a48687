"""The golden trajectories: ten losses of every method on the digits, from a fixed seed, in float64.

python tests/methods/golden.py      writes golden.json anew; only after a change that is meant to alter them
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from bat_fast import data
from bat_fast.batch import Batch
from bat_fast.cli.settings import read_command
from bat_fast.config import TrainConfig
from bat_fast.models import create
from bat_fast.train import build
from bat_fast.train.meter import EpochMeter
from bat_fast.train.step import TrainStep

FILE = Path(__file__).with_name("golden.json")
METHODS = [
    *("standard", "pgd-at", "trades", "mart", "bat", "te", "trades-te", "hr", "hd"),
    *("fgsm-rs", "n-fgsm", "free", "bat-smooth"),
]


def recipe(method: str) -> TrainConfig:
    """The digits recipe, with a temporal ensembling that starts at once and a rate for small batches."""
    config = read_command(["--recipe", f"digits-{method}", "--out", "unused", "--optim.lr", "0.05"]).config
    if config.method["name"] == "te":
        config = replace(config, method=config.method | {"start": 1, "end": 3})
    return config


def losses(method: str) -> list[float]:
    """Ten steps of 64 images: five in epoch 1, five in epoch 2 on the same images."""
    config = recipe(method)
    torch.set_num_threads(1)  # tiny batches: more threads only wait for each other
    source = data.load("digits", seed=0).train
    torch.manual_seed(0)
    model = create(
        config.model.name,
        num_classes=10,
        in_channels=1,
        activation=config.model.activation,
        mean=source.mean,
        std=source.std,
    ).double()
    how = build.build_method(config)
    if hasattr(how, "prepare"):
        how.prepare(1797, 10, "cpu")
    attack, sgd = build.build_attack(config, how, model), build.build_optimizer(config.optim, model)
    step = TrainStep(model.train(), how, attack, sgd, config.attack, config.optim)
    totals = []
    for number in range(10):
        rows = slice(64 * (number % 5), 64 * (number % 5) + 64)
        batch = Batch(source.images[rows].double(), source.labels[rows], source.index[rows])
        totals.append(step(batch, 1 + number // 5, EpochMeter("cpu")).total.item())
    return totals


if __name__ == "__main__":
    FILE.write_text(json.dumps({method: losses(method) for method in METHODS}, indent=1) + "\n")
