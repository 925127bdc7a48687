"""A run that is stopped within an epoch goes on with the next batch, and ends in the same bits."""

import dataclasses
import os
import signal
import subprocess
import sys

import pytest
import torch
from test_resume import rows, same

from bat_fast import data
from bat_fast.config import AugmentConfig, DataConfig, EvalConfig
from bat_fast.data.generate import write_tiny_imagenet
from bat_fast.data.loaders.dali import missing
from bat_fast.evaluate import load_run
from bat_fast.runs.checkpoint import load_checkpoint
from bat_fast.train import Trainer
from bat_fast.train.step import TrainStep

pytestmark = pytest.mark.slow

# The fourth step of the second epoch ends the process, or sends it a signal.
CHILD = """
import os, signal, sys
from bat_fast.train import Trainer
from bat_fast.cli.settings import read_command
from bat_fast.train.step import TrainStep

name, config, out = sys.argv[1:]
run = Trainer(read_command(["--config", config]).config, out, progress=False)
step, update = 0, TrainStep.__call__

def act(*args, **options):
    global step
    step += 1
    if step == len(run.loader) + 4:
        os.kill(os.getpid(), getattr(signal, name))
    return update(*args, **options)

TrainStep.__call__ = act
try:
    run.fit()
except KeyboardInterrupt:
    sys.exit(130)
"""
PARTS = ("epoch", "model", "optimizer", "average", "method", "rng", "config")


def run_child(name, config, out):
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", CHILD, name, str(config), str(out)]
    return subprocess.run(command, env=environment, check=False).returncode


def check_same_end(whole, out):
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert rows(out) == rows(whole)
    for name in ("last.pt", "best.pt"):
        before, after = (load_checkpoint(folder / "checkpoints" / name) for folder in (whole, out))
        assert all(same(before[part], after[part]) for part in PARTS), name


@pytest.fixture(scope="module")
def busy(small):
    """Settings with every kind of state: average, soft targets, clean starts, a checkpoint every 3 steps."""
    config = small(epochs=3, method={"name": "te", "over": "trades", "weight": 30, "start": 0, "end": 2})
    return dataclasses.replace(
        config,
        checkpoint_every=3,
        optim=dataclasses.replace(config.optim, average="ema"),
        attack=dataclasses.replace(config.attack, clean_start=0.3),
    )


@pytest.fixture(scope="module")
def whole(busy, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    Trainer(busy, out, progress=False).fit()
    return out


@pytest.mark.parametrize(
    ("name", "status", "position"),
    [("SIGKILL", -9, 1), ("SIGTERM", 130, 4), pytest.param("SIGINT", 130, 4, marks=pytest.mark.whole)],
)
def test_stopped_and_resumed(name, status, position, busy, whole, tmp_path):
    out = tmp_path / "run"
    assert run_child(name, whole / "config.yaml", out) == status
    state = load_checkpoint(out / "checkpoints" / "last.pt")
    assert state["epoch"] == 1
    # After SIGKILL the checkpoint of step 6 is left, after the others that of the step they came in.
    assert state["running"]["loader"] == {"epoch": 1, "position": position}
    run = Trainer(busy, out, resume=True, progress=False)
    torch.rand(3)  # of somebody else
    run.fit()
    check_same_end(whole, out)


def test_stopped_in_the_last_step_of_an_epoch(busy, whole, tmp_path, monkeypatch):
    out, steps, update = tmp_path / "run", [], TrainStep.__call__
    run = Trainer(busy, out, progress=False)

    def step(*args, **options):
        steps.append(1)
        if len(steps) == len(run.loader):
            os.kill(os.getpid(), signal.SIGTERM)
        return update(*args, **options)

    monkeypatch.setattr(TrainStep, "__call__", step)
    with pytest.raises(KeyboardInterrupt):
        run.fit()
    state = load_checkpoint(out / "checkpoints" / "last.pt")
    assert (state["epoch"], state["running"]["loader"]["position"]) == (0, len(run.loader))
    Trainer(busy, out, resume=True, progress=False).fit()
    check_same_end(whole, out)


def test_the_handlers_are_put_back(small, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    Trainer(small(epochs=1), tmp_path / "run", progress=False).fit()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_moved_data_folder_and_other_workers_do_not_stop_a_resume(small, tmp_path):
    def config(root, workers):
        wanted = DataConfig(name="tiny_imagenet", root=str(root), workers=workers, loader="torch")
        return small(epochs=1, data=wanted, batch_size=16)

    root = write_tiny_imagenet(tmp_path / "one", classes=2, train=12, val=2)
    Trainer(config(root, 0), tmp_path / "run", progress=False).fit()
    moved = root.rename(tmp_path / "two")
    Trainer(config(moved, 1), tmp_path / "run", resume=True, progress=False).fit()


KINDS = [
    pytest.param("resident", marks=pytest.mark.whole),  # the others are of digits, which are resident too
    pytest.param("dali", marks=pytest.mark.skipif(missing() is not None, reason=str(missing()))),
    "torch",
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_loader_resumes_within_an_epoch(kind, small, tmp_path):
    root = write_tiny_imagenet(tmp_path / "tiny", classes=3, train=10, val=1)
    augment = AugmentConfig(pad=4, flip=True, cutout=8)
    wanted = DataConfig(name="tiny_imagenet", root=str(root), loader=kind, workers=1, augment=augment)
    evaluation = EvalConfig(val_steps=1, test_steps=1)
    config = small(epochs=2, batch_size=4, data=wanted, method={"name": "standard"}, eval=evaluation)
    whole, out = tmp_path / "whole", tmp_path / "run"
    Trainer(config, whole, progress=False).fit()
    assert run_child("SIGTERM", whole / "config.yaml", out) == 130
    assert load_checkpoint(out / "checkpoints" / "last.pt")["running"]["loader"]["position"] == 4
    Trainer(config, out, resume=True, progress=False).fit()
    check_same_end(whole, out)


@pytest.mark.parametrize("split", ["val", "test"])
def test_labels_in_another_order_raise_the_alarm(split, small, tmp_path, capsys):
    splits = data.load("digits", seed=0)
    turned = (getattr(splits, split).labels + 1) % 10
    wrong = splits._replace(**{split: dataclasses.replace(getattr(splits, split), labels=turned)})
    config = small(method={"name": "standard"})
    for given, raised in ((splits, False), (wrong, True)):
        Trainer(config, tmp_path / f"run {raised}", progress=False, splits=given).fit()
        said = f"WARNING: {split} accuracy" in (printed := capsys.readouterr().out)
        assert said == raised
        assert ("agree with classes.txt" in printed) == raised


def test_class_names_are_written(small, tmp_path):
    Trainer(small(epochs=1), tmp_path / "run", progress=False).fit()
    assert (tmp_path / "run" / "classes.txt").read_text().split() == list("0123456789")
    assert load_run(tmp_path / "run")[1]["classes"] == list("0123456789")
