"""More epochs for a run that has begun, and a run that ends early."""

from dataclasses import replace

import pytest
import torch
import yaml

from bat_fast.runs.weights import read_weights
from bat_fast.train import Trainer
from bat_fast.train.longer import check_longer

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("schedule", "changes"),
    [
        ({"schedule": "constant"}, {}),
        ({"schedule": "multistep", "milestones": (1.5,), "warmup": 1.5}, {"attack": {"warmup": 1.5}}),
    ],
)
def test_a_finished_run_goes_on_to_the_weights_of_the_longer_one(schedule, changes, small, tmp_path):
    def config(epochs):
        plain = small(epochs=epochs)
        parts = {name: replace(getattr(plain, name), **values) for name, values in changes.items()}
        return replace(plain, optim=replace(plain.optim, **schedule), **parts)

    Trainer(config(4), tmp_path / "whole", progress=False).fit()
    Trainer(config(2), tmp_path / "part", progress=False).fit()
    results = Trainer(config(4), tmp_path / "part", resume=True, progress=False).fit()
    assert results["config"]["epochs"] == 4
    assert yaml.safe_load((tmp_path / "part" / "config.yaml").read_text())["epochs"] == 4
    whole, part = (torch.load(tmp_path / name / "checkpoints/last.pt") for name in ("whole", "part"))
    assert all(torch.equal(whole["model"][name], part["model"][name]) for name in whole["model"])


@pytest.mark.parametrize("schedule", ["cosine", "cyclic", "multistep"])
def test_where_it_would_be_another_run_it_says_so_and_changes_nothing(schedule, small, tmp_path):
    def config(epochs):
        plain = small(epochs=epochs)
        return replace(plain, optim=replace(plain.optim, schedule=schedule, milestones=(0.5,)))

    out = tmp_path / "run"
    Trainer(config(2), out, progress=False).fit()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    message = (
        rf"with 3 epochs: the learning rate \(optim\.schedule {schedule}\) was laid out over 2.*--model\.init"
    )
    with pytest.raises(ValueError, match=message):
        Trainer(config(3), out, resume=True)
    with pytest.raises(ValueError, match="epochs must be at least 2, which are trained already"):
        Trainer(config(1), out, resume=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    begun = Trainer(
        replace(config(3), model=replace(config(3).model, init=str(out))), tmp_path / "next", progress=False
    )
    saved = read_weights(out)
    assert all(torch.equal(saved[name], value) for name, value in begun.model.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"attack": {"warmup": 0.5}}, "attack.warmup"),
        ({"attack": {"late_start": 0.5, "late_steps": 3}}, "attack.late_start"),
        ({"optim": {"awp": 0.01, "awp_start": 0.5}}, "optim.awp_start"),
        ({"optim": {"average": "swa", "average_start": 0.5}}, "optim.average_start"),
    ],
)
def test_whatever_is_a_fraction_of_the_run_is_named(changes, named, small, tmp_path):
    config = small(epochs=8)
    config = replace(config, optim=replace(config.optim, schedule="constant"))
    longer = replace(config, **{k: replace(getattr(config, k), **v) for k, v in changes.items()})
    check_longer(config, 4, 4, 10, tmp_path)
    with pytest.raises(ValueError, match=named):
        check_longer(longer, 4, 4, 10, tmp_path)


def test_patience_ends_a_run_and_a_resumed_one_ends_there_too(small, tmp_path, capsys):
    config = small(epochs=30)
    config = replace(
        config, optim=replace(config.optim, lr=1e-9), eval=replace(config.eval, patience=2)
    )  # such a rate changes nothing: the first epoch stays the best
    trainer = Trainer(config, tmp_path / "run", progress=False)
    results = trainer.fit()
    ended = results["epoch"] + 2
    assert ended < 30
    assert len(trainer.folder.rows()) == ended
    assert "no better validation for 2 epochs (eval.patience); stopped" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"it has ended by itself after \d+ \(eval\.patience"):
        Trainer(replace(config, epochs=40), tmp_path / "run", resume=True)
    again = Trainer(config, tmp_path / "run", resume=True, progress=False)
    again.fit()
    assert len(again.folder.rows()) == ended


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_optimisers_train_and_spare_what_they_shall(name, small, tmp_path):
    plain = small(epochs=1)
    optim = replace(
        plain.optim, name=name, lr=0.002, weight_decay=0.1, decay="weights", nesterov=name == "sgd"
    )
    trainer = Trainer(replace(plain, optim=optim), tmp_path / "run", progress=False)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name]
    optimizer = trainer.parts.optimizer
    assert type(optimizer) is kind
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for parameter in trainer.model.parameters():
        assert decays[id(parameter)] == (0.1 if parameter.dim() > 1 else 0.0)
    assert trainer.fit()["metrics"]["train/loss"] < 5


def test_time_is_written_down(small, tmp_path):
    trainer = Trainer(small(epochs=2), tmp_path / "run", progress=False)
    results = trainer.fit()
    seconds = [row["perf/epoch_s"] for row in trainer.folder.rows()]
    assert min(seconds) > 0
    assert results["metrics"]["perf/train_s"] == pytest.approx(sum(seconds))
