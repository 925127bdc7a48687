"""Signals wherever they arrive: no epoch is lost, and the exit status says what to do."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bat_fast.runs.checkpoint import load_checkpoint
from bat_fast.train import Trainer

# The process sends itself a signal in the second call of a function of the trainer.
CHILD = """
import os, signal, sys
sys.path.insert(0, sys.argv[4])
from bat_fast import cli
from bat_fast.train import record, trainer

place, number, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
module = trainer if hasattr(trainer, place) else record
calls, real = 0, getattr(module, place)

def shot(*arguments, **options):
    global calls
    calls += 1
    if calls == number:
        os.kill(os.getpid(), signal.SIGTERM)
    return real(*arguments, **options)

setattr(module, place, shot)
words = "train --recipe digits-bat --epochs 3 --attack.steps 1 --device cpu --out"
sys.exit(cli.main([*words.split(), out]))
"""


def run_child(place, number, out):
    command = [sys.executable, "-c", CHILD, place, str(number), str(out), str(Path.cwd())]
    return subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "number", "epochs"),
    [("accuracies", 2, 2), ("save_checkpoint", 3, 2), ("finish", 1, 3), ("Feed", 1, None)],
    ids=["in validation", "in a checkpoint", "in the final test", "before it begins"],
)
def test_sigterm(place, number, epochs, tmp_path):
    out = tmp_path / "run"
    ended = run_child(place, number, out)
    assert ended.returncode == (130 if epochs is None else 75), ended.stderr
    assert ended.stderr.count("\n") == 1
    if epochs is None:
        assert not out.exists()
        return
    assert f"continue with: bat-fast train --resume --out {out}" in ended.stderr
    state = load_checkpoint(out / "checkpoints" / "last.pt")
    assert state["epoch"] == epochs, "the epoch that was trained is kept"
    assert not (out / ".lock").exists()
    assert [json.loads(line)["epoch"] for line in (out / "metrics.jsonl").open()] == list(
        range(1, epochs + 1)
    )


def test_a_finished_run_is_refused_before_a_file_changes(small, tmp_path):
    out = tmp_path / "run"
    Trainer(small(epochs=1), out, progress=False).fit()
    (out / "classes.txt").write_text("by hand\n")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.rglob("*") if path.is_file()}
    for changes in ({"seed": 1}, {"batch_size": 64}, {"epochs": 2}):
        with pytest.raises(ValueError, match="cannot resume"):
            Trainer(small(**{"epochs": 1} | changes), out, resume=True, progress=False)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.rglob("*") if path.is_file()}
    assert after == before


# In a process of its own: torch raises about a dead worker from a signal handler, wherever the program is.
KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import torch
from bat_fast.data import Source, create_loader

numbers = torch.arange(400)
images = torch.zeros(400, 1, 4, 4, dtype=torch.uint8)
source = Source(images, numbers % 2, numbers, 2, "few", ("a", "b"), (0.5,), (0.5,))
loader = create_loader(source, 4, kind="torch", shuffle=True, seed=0, workers=1)
stream = iter(loader)
next(stream)
# torch's own handler may raise before the stream is asked again; its look at the workers cannot.
if sys.argv[2] == "asked":
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
os.kill(loader._loader._iterator._workers[0].pid, signal.SIGKILL)
try:
    while sys.argv[2] == "anywhere":
        torch.ones(9).sum()
    list(stream)
except RuntimeError as error:
    print(error, flush=True)
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["asked", "anywhere"])
def test_a_killed_worker_is_named(where):
    command = [sys.executable, "-c", KILLED, str(Path.cwd()), where]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert said.count("\n") == 1
    assert said.startswith("a process that prepares images")
    assert "take fewer --data.workers" in said
    if where == "anywhere":
        assert re.search(r"\(--data.loader torch, process \d+\) was ended by the system \(Killed\)", said)
