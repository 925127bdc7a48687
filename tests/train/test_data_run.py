"""Runs on files, caches and extra images, from the command to results.json."""

import dataclasses
import json

import numpy as np
import pytest

from bat_fast.cli import main
from bat_fast.config import DataConfig, ExtraConfig, Ratio
from bat_fast.data.generate import write_tiny_imagenet
from bat_fast.data.loaders.dali import missing
from bat_fast.train import Trainer

pytestmark = pytest.mark.slow

KINDS = [
    "auto",
    "resident",
    pytest.param("dali", marks=pytest.mark.skipif(missing() is not None, reason=str(missing()))),
    "torch",
]
QUICK = [
    "train", "--recipe", "tiny-imagenet-bat", "--epochs", "1", "--model.name", "small_cnn",
    "--batch_size", "8", "--attack.steps", "1", "--eval.val_steps", "1", "--eval.test_steps", "1",
    "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_tiny_imagenet(tmp_path_factory.mktemp("data") / "tiny", classes=4, train=8, val=3)


@pytest.fixture(scope="module")
def reference(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "reference"
    words = ["--data.root", str(root), "--data.loader", "resident", "--out", str(out)]
    assert main([*QUICK, *words]) == 0
    return json.loads((out / "results.json").read_text())["metrics"]


@pytest.mark.parametrize("kind", KINDS)
def test_from_raw_files_to_results(kind, root, reference, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["--data.root", str(root), "--data.loader", kind, "--data.workers", "1", "--out", str(out)]
    assert main([*QUICK, *words]) == 0
    printed = capsys.readouterr().out
    assert "tiny_imagenet, 31 + 1 + 12 images in 4 classes; loader " in printed
    results = json.loads((out / "results.json").read_text())
    assert results["config"]["data"]["augment"]["pad"] == 4
    for name, value in results["metrics"].items():
        if not name.startswith("perf/"):
            assert value == reference[name], (name, "every loader gives the same batches")
    assert main(["eval", str(out), "--steps", "1", "--device", "cpu", "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)["metrics"]
    assert evaluated["test/clean_acc"] == results["metrics"]["test/clean_acc"]


def test_the_cache_gives_the_same_run(root, reference, tmp_path):
    assert (
        main(["prepare", "tiny-imagenet", str(root), "--out", str(tmp_path / "cache"), "--workers", "1"]) == 0
    )
    out = tmp_path / "run"
    assert main([*QUICK, "--data.root", str(tmp_path / "cache"), "--out", str(out)]) == 0
    metrics = json.loads((out / "results.json").read_text())["metrics"]
    assert metrics["train/loss"] == reference["train/loss"]
    assert metrics["test/pgd1_acc"] == reference["test/pgd1_acc"]


def test_moved_data_are_evaluated_with_root(tmp_path, capsys):
    place, out = tmp_path / "here", tmp_path / "run"
    write_tiny_imagenet(place, classes=2, train=6, val=2)
    assert main([*QUICK, "--data.root", str(place), "--out", str(out)]) == 0
    place.rename(tmp_path / "there")
    capsys.readouterr()
    assert main(["eval", str(out), "--steps", "1", "--device", "cpu"]) == 2
    assert "is not a folder" in capsys.readouterr().err
    words = ["--root", str(tmp_path / "there"), "--steps", "1", "--device", "cpu"]
    assert main(["eval", str(out), *words]) == 0


def test_corrupt_files_are_counted_at_the_end(tmp_path, capsys):
    place = write_tiny_imagenet(tmp_path / "tiny", classes=2, train=10, val=2)
    broken = next((place / "train").rglob("*_3.JPEG"))
    broken.write_bytes(broken.read_bytes()[:300])
    words = ["--data.root", str(place), "--data.workers", "0", "--data.loader", "torch"]
    assert main([*QUICK, *words, "--out", str(tmp_path / "one")]) == 2
    assert str(broken) in capsys.readouterr().err
    assert main([*QUICK, *words, "--data.on_corrupt", "skip", "--out", str(tmp_path / "two")]) == 0
    said = capsys.readouterr().out
    assert f"WARNING: 1 images were left out, the first: image {broken}" in said
    assert "on_corrupt" not in said


def test_an_empty_split_is_found_before_training(root, tmp_path, capsys):
    words = ["--data.root", str(root), "--data.options.val", "0", "--out", str(tmp_path / "run")]
    assert main([*QUICK, *words]) == 2
    assert "tiny_imagenet: val is empty; data.options.val must leave images" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_extra_images(small, tmp_path):
    chance = np.random.default_rng(0)
    images = chance.integers(0, 256, (23, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "extra.npz", image=images, label=chance.integers(0, 4, 23))
    wanted = DataConfig(
        name="synthetic",
        options={"size": 8, "classes": 4, "count": 80},
        extra=ExtraConfig(path=str(tmp_path / "extra.npz"), share=Ratio("1/4")),
    )
    te = {"name": "te", "over": "pgd_at", "weight": 30, "start": 0, "end": 1}
    config = small(epochs=2, batch_size=16, data=wanted, method=te)
    run = Trainer(config, tmp_path / "run", progress=False)
    assert "and 23 extra" in run.feed.describe()
    assert run.fit()["n_examples"]["train"] == 64
    assert len(run.method.state_dict()["memory"]) == 80 + 23
    extra = dataclasses.replace(wanted.extra, share=Ratio("1"))
    with pytest.raises(ValueError, match=r"data\.extra\.share must be in \(0, 1\), got 1"):
        Trainer(small(data=dataclasses.replace(wanted, extra=extra)), tmp_path / "bad")
