"""Several processes give what one gives: the same images, the same weights, the same files, and one end."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ranks import CASES, collectives, difference, final, short, train, trainer, weights

from bat_fast import methods
from bat_fast._environ import switched_off
from bat_fast.attacks import autoattack
from bat_fast.device import cores, pick_device
from bat_fast.world.launch import joined, place_in, said_by
from bat_fast.world.ranks import ALONE

PROGRAM, SIZE = Path(__file__).with_name("ranks.py"), 3
SCRIPT = Path(__file__).parents[2] / "examples" / "slurm" / "train.sbatch"


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """What three processes have found, their folder, and how they ended."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(SIZE), "LOCAL_WORLD_SIZE": str(SIZE), "MASTER_ADDR": "127.0.0.1"}
    common |= {
        "PYTHONPATH": str(PROGRAM.parents[2]),
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": "1",
        "BAT_FAST_TIMEOUT": "120",
    }
    started = [
        subprocess.Popen(
            [sys.executable, PROGRAM, folder],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(SIZE)
    ]
    said = [process.communicate(timeout=300) for process in started]
    assert (folder / f"{SIZE}.pt").exists(), said
    return torch.load(folder / f"{SIZE}.pt"), folder, [p.returncode for p in started], said


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_step_is_that_of_one_process(case, three):
    assert difference(train(case, ALONE), three[0][case]) < 1e-9


def test_no_method_is_left_out():
    assert {method["name"] for method, _ in CASES.values()} == set(methods.names())


@pytest.mark.slow
def test_all_processes_have_the_same_model(three):
    """Also where each normalises by its own images: what differs is what one process would have had."""
    assert all(three[0][case]["same"] for case in [*CASES, "local"])
    assert difference(train("bat", ALONE), three[0]["local"]) > 1e-6


@pytest.mark.slow
def test_no_step_of_an_attack_waits_for_another_process(three):
    one, four = three[0]["collectives"]
    # Sizes, labels; logits and features for AWP and again for the update; gradients of both.
    assert one == four == (2 + 2 * (2 + 1), 0)
    assert collectives(ALONE, 1) == (0, 0)


@pytest.mark.slow
def test_a_run_is_that_of_one_process_and_goes_on_in_one(three, tmp_path, monkeypatch):
    results, folder, _, said = three
    assert "not stopped" not in results
    monkeypatch.setattr(autoattack, "_VERSIONS", autoattack._VERSIONS.copy())
    short()
    run = trainer(tmp_path / "one", ALONE)
    assert final(run.fit()) == results["run"]["tested"]
    assert (weights(run.model) - results["run"]["found"][0]).abs().max() < 1e-9
    for ours, theirs in zip(run.rows, results["run"]["rows"], strict=True):
        assert ours.keys() == theirs.keys()
        shared = [name for name in ours if not name.startswith("perf/")]
        assert [ours[name] for name in shared] == pytest.approx([theirs[name] for name in shared], abs=1e-9)
    there = {path.name for path in (folder / f"run-{SIZE}").rglob("*")}
    assert there == {path.name for path in (tmp_path / "one").rglob("*")} - {"curves.png"}
    rest = trainer(folder / "stopped", ALONE, resume=True)
    assert (rest.epoch, rest.loader.position) == (1, 0)
    assert rest._place["loader"]["position"] == 2  # of four: the sixth step of the run was told to stop
    rest.fit()
    assert (weights(rest.model) - weights(run.model)).abs().max() < 1e-9
    assert said[0][0].count("epoch 1/2") == 2
    assert said[1][0] + said[2][0] == ""  # what ranks but the first print


@pytest.mark.slow
def test_an_error_on_one_rank_ends_all_and_is_said_once(three):
    _, folder, status, said = three
    assert all(status)
    wrong = ["something that is wrong here alone" in errors for _, errors in said]
    assert wrong == [False, False, True]
    assert said[0][1] + said[1][1] == ""
    assert not (folder / "never" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({}, None),
        ({"WORLD_SIZE": "1", "RANK": "0"}, None),
        ({"WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}, (5, 8, 1, 4)),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, None),  # a batch script, before its srun
        (
            {"SLURM_PROCID": "6", "SLURM_LOCALID": "2"}
            | {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"},
            (6, 8, 2, 4),
        ),
    ],
)
def test_places(environ, place):
    assert place_in(environ) == place
    assert said_by(environ) == ("" if place is None else f"rank {place[0]}: ")


@pytest.mark.parametrize(("status", "queued"), [(75, "requeue 42\n"), (0, ""), (1, "")])
def test_the_batch_script_queues_itself_again_on_75_alone(status, queued, tmp_path):
    for name, body in (("srun", f'echo "$@" > srun.said; exit {status}'), ("scontrol", 'echo "$@" > queued')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environ = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "42"}
    words = ["bash", SCRIPT, "digits-bat", "runs/a b", "--seed", "3"]
    assert subprocess.run(words, cwd=tmp_path, env=environ, check=False).returncode == status
    there = tmp_path / "queued"
    assert (there.read_text() if there.exists() else "") == queued
    command = "python -m bat_fast train --recipe digits-bat --out runs/a b --resume --seed 3\n"
    assert (tmp_path / "srun.said").read_text() == f"--kill-on-bad-exit=1 {command}"


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="several processes, but 'RANK' is missing"):
        place_in({"WORLD_SIZE": "2"})
    assert said_by({"WORLD_SIZE": "2"}) == ""
    with joined({}) as world:
        assert world is ALONE


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be a whole number >= 1, got 'two'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE must be a whole number >= 1, got '0'"),
        ({"RANK": "-1"}, "RANK must be a whole number >= 0, got '-1'"),
        ({"RANK": "2"}, "RANK must be below WORLD_SIZE=2, got 2"),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK must be a whole number >= 0, got ''"),
        ({"BAT_FAST_TIMEOUT": "long"}, "BAT_FAST_TIMEOUT must be seconds > 0 and <= 1e.08, got 'long'"),
        ({"BAT_FAST_TIMEOUT": "inf"}, "BAT_FAST_TIMEOUT must be seconds > 0"),
        ({"MASTER_PORT": "web"}, "MASTER_PORT must be a whole number >= 0, got 'web'"),
    ],
)
def test_what_is_no_number_is_named(wrong, said, monkeypatch):
    environ = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"} | wrong
    monkeypatch.setenv("MASTER_PORT", environ.get("MASTER_PORT", "0"))
    with pytest.raises(ValueError, match=said), joined(environ):
        pass


def test_a_switch_is_0_or_1(monkeypatch):
    assert [switched_off({"X": word}, "X") for word in ("", "0", "1")] == [False, True, False]
    with pytest.raises(ValueError, match="X must be 0 or 1, got 'off'"):
        switched_off({"X": "off"}, "X")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "0")
    with pytest.raises(ValueError, match="LOCAL_WORLD_SIZE must be a whole number >= 1, got '0'"):
        cores()


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    assert [pick_device(name, 1, 2) for name in ("auto", "cuda", "cpu")] == ["cuda:1", "cuda:1", "cpu"]
    with pytest.raises(ValueError, match="'cuda:0' is one for 2 processes"):
        pick_device("cuda:0", 1, 2)
    with pytest.raises(ValueError, match="3 processes share this machine, which has 2 GPUs"):
        pick_device("auto", 1, 3)
