"""A run that is killed with SIGKILL and resumed ends where an uninterrupted one does, bit for bit."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from bat_fast.runs.checkpoint import load_checkpoint
from bat_fast.train import Trainer

pytestmark = pytest.mark.slow

# The child shoots itself at an exact place, which no timer of the parent could hit.
CHILD = """
import os, signal, sys
import torch
from bat_fast.train import Trainer, record
from bat_fast.cli.settings import read_command

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

place, config, out = sys.argv[1:]
run = Trainer(read_command(["--config", config]).config, out, progress=False)
step, attack, save, dump = 0, run.step.attack, record.save_checkpoint, torch.save

def attack_then_die(*args, **options):
    global step
    step += 1
    if step == 2 * len(run.loader) + 3:  # the third step of the third epoch
        die()
    return attack(*args, **options)

def save_then_die(path, state):
    if state["epoch"] == 3 and place == "before last.pt" and path.name == "last.pt":
        die()
    if state["epoch"] == 3 and place == "inside a checkpoint":
        torch.save = lambda state, file: (file.write(b"half of it"), file.flush(), die())
    save(path, state)

if place == "inside an epoch":
    attack_then_die.bn_updates = attack.bn_updates
    run.step.attack = attack_then_die
record.save_checkpoint = save_then_die
run.fit()
"""


def same(one, two):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


def rows(folder):
    """metrics.jsonl without the speeds, which no run repeats."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if not key.startswith("perf/")}
        for line in lines
    ]


@pytest.fixture(scope="module")
def uninterrupted(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    Trainer(small(), out, progress=False).fit()
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    [pytest.param("inside an epoch", marks=pytest.mark.whole), "inside a checkpoint", "before last.pt"],
)
def test_killed_and_resumed(uninterrupted, small, tmp_path, place):
    out = tmp_path / "run"
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", CHILD, place, str(uninterrupted / "config.yaml"), str(out)]
    child = subprocess.run(command, env=environment, check=False)
    assert child.returncode == -signal.SIGKILL
    assert load_checkpoint(out / "checkpoints" / "last.pt")["epoch"] == 2
    assert len(rows(out)) == (2 if place == "inside an epoch" else 3)

    Trainer(small(), out, resume=True, progress=False).fit()
    assert (out / "model.safetensors").read_bytes() == (uninterrupted / "model.safetensors").read_bytes()
    assert rows(out) == rows(uninterrupted)
    for name in ("last.pt", "best.pt"):
        before, after = (load_checkpoint(folder / "checkpoints" / name) for folder in (uninterrupted, out))
        for part in ("epoch", "model", "optimizer", "method", "rng", "config"):
            assert same(before[part], after[part]), (name, part)


TE = {"name": "te", "over": "trades", "weight": 30, "start": 1, "end": 4}


@pytest.mark.whole  # test_within_epoch.py has the memory in an epoch, with all else
@pytest.mark.slow
def test_the_memory_of_temporal_ensembling_survives(small, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "run"
    Trainer(small(method=TE), whole, progress=False).fit()
    command = [sys.executable, "-c", CHILD, "inside an epoch", str(whole / "config.yaml"), str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    state = load_checkpoint(out / "checkpoints" / "last.pt")
    assert state["epoch"] == 2
    assert state["method"]["memory"].any()
    Trainer(small(method=TE), out, resume=True, progress=False).fit()
    assert rows(out) == rows(whole)
    before, after = (load_checkpoint(folder / "checkpoints" / "last.pt") for folder in (whole, out))
    assert same(before["method"], after["method"])
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_resuming_a_finished_run_repeats_its_outputs(uninterrupted, small):
    before = json.loads((uninterrupted / "results.json").read_text())
    (uninterrupted / "results.json").unlink()
    after = Trainer(small(), uninterrupted, resume=True, progress=False).fit()
    assert json.loads((uninterrupted / "results.json").read_text()) == after
    assert after | {"git": None} == before | {"git": None}  # somebody may commit in between


def test_resuming_with_other_settings_names_the_first_difference(uninterrupted, small):
    content = (uninterrupted / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"with 5 epochs: the learning rate"):
        Trainer(small(epochs=5), uninterrupted, resume=True)
    changed = dataclasses.replace(small().optim, lr=0.06)
    with pytest.raises(ValueError, match=r"optim\.lr was 0\.05 and is now 0\.06"):
        Trainer(small(optim=changed), uninterrupted, resume=True)
    assert (uninterrupted / "metrics.jsonl").read_bytes() == content


def test_an_edited_config_file_does_not_slip_through(small, tmp_path):
    out = tmp_path / "run"
    Trainer(small(epochs=1), out, progress=False).fit()
    text = (out / "config.yaml").read_text()
    (out / "config.yaml").write_text(text.replace("epochs: 1", "epochs: 2"))
    with pytest.raises(ValueError, match=r"config\.yaml has changed since the run wrote it"):
        Trainer(small(epochs=2), out, resume=True)


def test_resume_without_a_run_starts_one(small, tmp_path):
    results = Trainer(small(epochs=1), tmp_path / "run", resume=True, progress=False).fit()
    assert results["epoch"] == 1
