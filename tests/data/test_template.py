"""The data set to copy works where it is copied to, from the first call to the command line."""

import json
import shutil
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from bat_fast import data
from bat_fast.cli import main
from bat_fast.data import sets

TEMPLATE = Path(__file__).parents[2] / "examples" / "templates" / "data_set.py"
NAME = "copied_bars"
TINY = [
    "train", "--data.name", NAME, "--epochs", "1", "--batch_size", "16", "--attack.steps", "1",
    "--eval.val_steps", "1", "--eval.test_steps", "1", "--device", "cpu",
]  # fmt: skip


@pytest.fixture(autouse=True)
def copied(tmp_path, monkeypatch):
    """A copy in a folder that belongs to the package for one test."""
    folder = tmp_path / "sets"
    folder.mkdir()
    shutil.copy(TEMPLATE, folder / f"{NAME}.py")
    monkeypatch.setattr(sets, "__path__", [*sets.__path__, str(folder)])
    yield
    sys.modules.pop(f"{sets.__name__}.{NAME}", None)
    vars(sets).pop(NAME, None)


def test_its_facts_are_those_of_its_splits():
    assert NAME in data.names()
    splits = data.load(NAME, seed=0)
    assert [len(part) for part in splits] == [data.train_images(NAME), 60, 90] == [240, 60, 90]
    for part in splits:
        assert data.Shape(part.num_classes, part.channels, part.image_size) == data.shape(NAME)
        assert part.labels.bincount().tolist() == [len(part) // 3] * 3
    index = torch.cat([part.index for part in splits])
    assert torch.equal(index.sort().values, torch.arange(390))


def test_the_seed_decides_what_validates_and_nothing_else():
    one, two = (data.load(NAME, seed=seed) for seed in (0, 1))
    assert torch.equal(one.train.images, two.train.images)
    assert torch.equal(one.test.index, two.test.index)
    assert not torch.equal(one.val.index, two.val.index)


def test_its_options_are_checked():
    assert len(data.load(NAME, seed=0, options={"val": 30, "noise": 0}).train) == 270
    with pytest.raises(ValueError, match=r"data\.options\.noise must be in \[0, 255\], got 300"):
        data.load(NAME, seed=0, options={"noise": 300})
    with pytest.raises(ValueError, match=r"has no such option; it has: noise, val"):
        data.load(NAME, seed=0, options={"nose": 3})


def test_every_loader_gives_the_same_batches():
    train = data.load(NAME, seed=0).train
    augment = data.Augment(pad=1, flip=True)
    loaders = [
        data.create_loader(train, 32, kind=kind, shuffle=True, seed=0, augment=augment)
        for kind in ("resident", "torch")
    ]
    seen = []
    for one, two in zip(*loaders, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
        assert one.x.shape[1:] == (1, 8, 8)
        assert one.x.max() == 1
        seen += one.index.tolist()
    assert sorted(seen) == sorted(train.index.tolist())


def test_it_trains_from_the_command_line(tmp_path):
    assert main([*TINY, "--dry-run"]) == 0
    assert main([*TINY, "--out", str(tmp_path / "run")]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["n_examples"] == {"train": 240, "val": 60, "test": 90}
    assert results["metrics"]["test/clean_acc"] > 0.8, "a third is chance"


def test_another_package_brings_it(monkeypatch):
    module = sets.find(NAME)
    point = EntryPoint("bars", "my_package.bars", "bat_fast.data")
    monkeypatch.setattr(EntryPoint, "load", lambda _: module)
    monkeypatch.setattr(sets, "entry_points", lambda group: [point] if group == point.group else [])
    assert len(data.load("bars", seed=0).train) == data.train_images("bars")
