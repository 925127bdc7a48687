"""A whole run: what it writes, what it chooses, what it refuses."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch

from bat_fast.config import DataConfig, EvalConfig, ModelConfig, OptimConfig
from bat_fast.evaluate import load_run
from bat_fast.runs.checkpoint import load_checkpoint
from bat_fast.runs.folder import plain
from bat_fast.train import Observer, Trainer


def train(config, out, **options):
    return Trainer(config, out, progress=False, **options).fit()


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    """A finished run: (configuration, folder, results)."""
    out = tmp_path_factory.mktemp("runs") / "small"
    return small(), out, train(small(), out)


def test_results(finished):
    config, out, results = finished
    assert results == json.loads((out / "results.json").read_text())
    assert {"metrics", "config", "versions", "git", "seed", "epoch", "chosen", "n_examples"} == set(results)
    assert results["config"] == plain(config)
    assert results["seed"] == 0
    assert results["n_examples"] == {"train": 1258, "val": 180, "test": 359}
    metrics = results["metrics"]
    for name in ("val/clean_acc", "val/pgd2_acc", "test/clean_acc", "test/pgd3_acc"):
        assert 0 <= metrics[name] <= 1
    assert metrics["test/clean_acc"] > 0.2
    assert {"perf/img_s", "perf/attack_ms", "perf/peak_mem_mib"} <= set(metrics)
    assert results["versions"]["torch"] == torch.__version__


def test_metrics_and_files(finished):
    _, out, results = finished
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert {"train/loss", "train/robust_acc", "train/lr", "val/clean_acc", "val/pgd2_acc"} <= set(rows[0])
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    files = {path.name for path in out.rglob("*") if path.is_file()}
    written = {
        "config.yaml",
        "classes.txt",
        "metrics.jsonl",
        "results.json",
        "model.safetensors",
        "curves.png",
    }
    assert files == written | {"best.pt", "last.pt"}
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    best = max(rows, key=lambda row: row["val/pgd2_acc"])  # max() returns the first of equals
    assert results["epoch"] == best["epoch"] == load_checkpoint(out / "checkpoints" / "best.pt")["epoch"]
    assert results["metrics"]["val/pgd2_acc"] == best["val/pgd2_acc"]


def test_the_exported_model_is_the_best_one(finished):
    _, out, _ = finished
    model, described = load_run(out)
    best = load_checkpoint(out / "checkpoints" / "best.pt")["model"]
    assert all(torch.equal(tensor, best[name]) for name, tensor in model.state_dict().items())
    assert described["num_classes"] == 10
    assert str(described["eps"]) == "1/10"


def test_the_best_epoch_is_that_of_validation(small, tmp_path, monkeypatch):
    trainer = Trainer(small(epochs=3), tmp_path / "run", progress=False)
    robust = iter([0.3, 0.5, 0.5])  # a tie: the earlier epoch stays
    measured = []

    def accuracies(_config, _feed, _model, split, attack):
        measured.append(split)
        accuracy = next(robust) if split == "val" else 0.9 - 0.1 * trainer.best["epoch"]
        return {f"{split}/clean_acc": 0.6, f"{split}/{attack}_acc": accuracy}

    monkeypatch.setattr("bat_fast.train.trainer.accuracies", accuracies)
    results = trainer.fit()
    assert results["epoch"] == 2
    assert results["metrics"]["test/pgd3_acc"] == pytest.approx(0.7)
    assert measured == ["val"] * 3 + ["test"]  # the test split is looked at once


@pytest.mark.slow
def test_validation_every_other_epoch(small, tmp_path):
    train(small(epochs=3, eval=EvalConfig(val_steps=1, test_steps=1, every=2)), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert ["val/pgd1_acc" in row for row in rows] == [False, True, True]  # the last one always


@pytest.mark.slow
def test_standard_training_does_not_attack(small, tmp_path, monkeypatch):
    trainer = Trainer(small(method={"name": "standard"}), tmp_path / "run", progress=False)
    monkeypatch.setattr(trainer.step, "attack", SimpleNamespace(step_size=0.1))  # cannot be called
    results = trainer.fit()
    assert results["metrics"]["perf/attack_ms"] == 0
    best = max(trainer.folder.rows(), key=lambda row: row["val/clean_acc"])
    assert results["epoch"] == best["epoch"]  # robust accuracy says nothing here


@pytest.mark.slow
def test_bat_without_its_terms_is_pgd_at_bit_for_bit(small, tmp_path):
    train(small(method={"name": "bat", "alpha": 0, "beta": 0}), tmp_path / "bat")
    train(small(method={"name": "pgd_at"}), tmp_path / "pgd_at")
    one, two = (load_checkpoint(tmp_path / name / "checkpoints" / "last.pt") for name in ("bat", "pgd_at"))
    for name, tensor in one["model"].items():
        assert torch.equal(tensor, two["model"][name]), name


def test_a_diverged_run_stops_and_names_the_last_good_checkpoint(small, tmp_path, monkeypatch):
    trainer = Trainer(small(), tmp_path / "run", progress=False)
    save = trainer._save

    def poison(row):
        save(row)
        with torch.no_grad():
            next(trainer.model.parameters()).fill_(float("nan"))

    monkeypatch.setattr(trainer, "_save", poison)
    with pytest.raises(FloatingPointError, match=r"nan in epoch 2; .*last\.pt \(epoch 1\)") as caught:
        trainer.fit()
    assert "\n" not in str(caught.value)
    state = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert state["epoch"] == 1
    assert all(tensor.isfinite().all() for tensor in state["model"].values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"device": "cuda:99"}, "device 'cuda:99'"),
        ({"device": "toaster"}, "device must be"),
        ({"method": {}}, r"method\.name is missing"),
        ({"method": {"name": "bta"}}, "bta"),
        ({"data": DataConfig(name="digit")}, "digit"),
        ({"model": ModelConfig(name="cnn")}, "cnn"),
        ({"model": ModelConfig(num_classes=3)}, r"model\.num_classes is 3, but digits has 10"),
        ({"optim": OptimConfig(lr=-1.0)}, r"optim\.lr must be > 0"),
    ],
)
def test_bad_settings_are_clear_and_leave_nothing_behind(small, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        Trainer(small(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_does_not_overwrite_a_run(finished):
    config, out, results = finished
    with pytest.raises(FileExistsError, match="--resume"):
        Trainer(config, out)
    assert json.loads((out / "results.json").read_text()) == results


def test_more_outputs_than_classes_are_allowed(small, tmp_path):
    config = small(epochs=1, model=ModelConfig(num_classes=12))
    assert 0 <= train(config, tmp_path / "run")["metrics"]["test/clean_acc"] <= 1
    assert dataclasses.asdict(config)["model"]["num_classes"] == 12


@pytest.mark.slow
def test_labels_and_observers_hear_of_every_epoch(small, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("bat_fast.train.trainer.report_labels", asked.append)

    class Witness(Observer):
        def __init__(self):
            self.ids, self.right, self.rows = [], [], []

        def step(self, batch, terms, epoch):
            assert not terms.total.requires_grad
            assert not terms.logits.requires_grad
            ce = torch.nn.functional.cross_entropy(terms.logits, batch.y, reduction="none")
            torch.testing.assert_close(ce, terms.per_sample)
            self.ids.append((epoch, batch.index))

        def epoch(self, row):
            self.rows.append(row)

    seen, parts = Witness(), Witness()
    alone = Trainer(small(epochs=2), tmp_path / "alone", progress=False)
    watched = Trainer(small(epochs=2), tmp_path / "watched", progress=False, observers=[seen])
    alone.fit()
    watched.fit()
    for name, weight in alone.model.state_dict().items():  # an observer changes nothing
        assert torch.equal(weight, watched.model.state_dict()[name]), name
    assert [row["epoch"] for row in seen.rows] == [1, 2]
    assert len(asked) == 4
    for epoch in (0, 1):
        ids = torch.cat([index for number, index in seen.ids if number == epoch])
        assert torch.equal(ids.sort().values, alone.splits.train.index.sort().values)
    # In parts the rows come back in the order of the batch.
    optim = OptimConfig(lr=0.05, schedule="cyclic", micro_batches=3)
    Trainer(small(epochs=1, optim=optim), tmp_path / "parts", progress=False, observers=[parts]).fit()
    assert len(parts.ids) == len(alone.loader)
