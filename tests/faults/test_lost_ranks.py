"""A process of several dies, or is told to end: all end, and what starts again ends in the same weights."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bat_fast.runs.checkpoint import load_checkpoint

PROGRAM = Path(__file__).with_name("ranks_in_trouble.py")
STEPS = 10  # of a run
TIMES = 10 if "BAT_FAST_FAULTS" in os.environ else 1
CHANCE = random.Random(os.environ.get("BAT_FAST_TEST_SEED"))
MOMENTS = [f"lost:{rank}:{step}" for rank in range(2) for step in range(1, STEPS + 1)]
LOST = CHANCE.sample(MOMENTS, TIMES)
KILLED, TOLD = "killed:1:4", "usr1:1:4"

pytestmark = [pytest.mark.slow, pytest.mark.whole]


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The folder of the runs, and how each has ended."""
    folder = tmp_path_factory.mktemp("lost")
    environ = os.environ | {"PYTHONPATH": str(PROGRAM.parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, PROGRAM, folder, "whole", *LOST, KILLED, TOLD]
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=120 + 30 * TIMES, check=False
    )
    assert (folder / "ended.json").exists(), done.stderr
    return folder, json.loads((folder / "ended.json").read_text())


def weights(run):
    """All weights of the last epoch."""
    return load_checkpoint(run / "checkpoints" / "last.pt")["model"]


@pytest.mark.parametrize("fault", LOST)
def test_a_restart_ends_in_the_same_bits(fault, ended):
    """`deterministic` and two ranks, of which one is killed at some step: as if nobody had been."""
    folder, how = ended
    assert how["whole"]["status"] == how[fault]["status"] == {"0": 0}
    whole, again = weights(folder / "whole"), weights(folder / fault.replace(":", "-"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    results = [
        json.loads((folder / run.replace(":", "-") / "results.json").read_text()) for run in ("whole", fault)
    ]
    one, two = ({k: v for k, v in r["metrics"].items() if k[:5] != "perf/"} for r in results)
    assert one == two


def test_who_is_left_says_so_and_ends(ended):
    folder, how = ended
    assert how[KILLED]["status"] == [1, -9]
    assert how[KILLED]["seconds"] < 30
    said = (folder / "killed-1-4.0.err").read_text()
    assert said.startswith("bat-fast: rank 0: error: RuntimeError: another process has ended, or")
    assert said.count("\n") == 1


def test_told_to_end_by_slurm_all_leave_with_75(ended):
    folder, how = ended
    assert how[TOLD]["status"] == [75, 75]
    said = [(folder / f"usr1-1-4.{rank}.err").read_text() for rank in range(2)]
    assert "continue with: bat-fast train --resume --out" in said[0]
    assert said[1] == ""
    state = load_checkpoint(folder / "usr1-1-4" / "checkpoints" / "last.pt")
    assert state["running"]["loader"]["position"] == 4  # the step that ran, and no other
