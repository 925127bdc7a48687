"""Label noise in a run: recorded per sample, and the same in the evaluation of the saved model."""

import csv

import pytest
import torch

from bat_fast.cli.settings import read_command
from bat_fast.config import DataConfig, LabelNoiseConfig, Ratio
from bat_fast.evaluate.saved import evaluate_saved
from bat_fast.train import Trainer

NOISY = DataConfig(label_noise=LabelNoiseConfig(rate=Ratio("0.4"), seed=3))


def test_the_run_folder_says_which_labels_are_wrong(small, tmp_path):
    trainer = Trainer(small(epochs=1, data=NOISY), tmp_path / "run", progress=False)
    results = trainer.fit()
    with (tmp_path / "run" / "label_noise.csv").open() as file:
        rows = [{key: int(value) for key, value in row.items()} for row in csv.DictReader(file)]
    train = trainer.splits.train
    assert [row["index"] for row in rows] == train.index.tolist()
    assert [row["true"] for row in rows] == train.true_labels.tolist()
    assert [row["given"] for row in rows] == train.labels.tolist()
    assert 0.3 < sum(row["true"] != row["given"] for row in rows) / len(rows) < 0.42
    assert results["config"]["data"]["label_noise"] == {"kind": "symmetric", "rate": 0.4, "seed": 3}
    again = evaluate_saved(tmp_path / "run", split="train", steps=1)
    with torch.no_grad():
        right = (trainer.model.eval()(train.images).argmax(1) == train.labels).double().mean()
    assert again["metrics"]["train/clean_acc"] == pytest.approx(right.item())


def test_without_noise_there_is_no_record(small, tmp_path):
    Trainer(small(epochs=1), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "label_noise.csv").exists()


def test_on_the_command_line():
    words = ["--data.label_noise.rate", "1/4", "--data.label_noise.kind", "nearest", "--out", "unused"]
    noise = read_command(words).config.data.label_noise
    assert (float(noise.rate), noise.kind, noise.seed) == (0.25, "nearest", 0)
