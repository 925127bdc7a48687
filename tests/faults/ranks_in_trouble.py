"""Runs of two ranks that are disturbed, started as torchrun does it: by its agent, which forks them here, so
that torch and the package are loaded once for all of them.

python tests/faults/ranks_in_trouble.py FOLDER FAULT ...     writes FOLDER/ended.json
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from contextlib import redirect_stderr
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from bat_fast import data
from bat_fast.cli import main as bat_fast
from bat_fast.train import finish
from bat_fast.train.step import TrainStep

SIZE = 2
WORDS = "train --recipe digits-bat --epochs 2 --batch_size 256 --attack.steps 1 --eval.val_steps 1"
WORDS += (
    " --eval.test_steps 1 --eval.autoattack 0 --device cpu --deterministic true --checkpoint_every 2 --resume"
)


def rank(out: str, number: int, victim: int, step: int) -> None:
    """What each process does; ``victim`` sends itself the signal ``number`` before ``step``, once."""
    torch.set_num_threads(1)
    signal.signal(
        signal.SIGTERM, signal.SIG_DFL
    )  # the agent's own, of which a program of its own has nothing
    finish.draw_curves = lambda *_, **__: None  # type: ignore[assignment]
    place = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))
    call, calls = TrainStep.__call__, 0

    def counted(self: TrainStep, *given: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if (place, calls, os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == (victim, step, "0"):
            os.kill(os.getpid(), number)
        return call(self, *given, **options)

    TrainStep.__call__ = counted  # type: ignore[method-assign]
    with Path(f"{out}.{place}.err").open("a") as file, redirect_stderr(file):
        status = bat_fast([*WORDS.split(), "--out", out])
    if status:
        os._exit(status)


def torchrun(out: Path, restarts: int, *fault: int) -> dict[str, Any]:
    """How two ranks under torchrun's agent end: exit status of the first that failed, 0 if all is well."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=SIZE,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=restarts,
        monitor_interval=0.05,
        start_method="fork",
    )
    began, status = time.monotonic(), {0: 0}
    try:
        elastic_launch(config, rank)(str(out), *fault)
    except ChildFailedError as error:
        status = {place: failure.exitcode for place, failure in error.failures.items()}
    return {"status": status, "seconds": time.monotonic() - began}


def srun(out: Path, *fault: int) -> dict[str, Any]:
    """How two ranks end that find the variables of srun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ.update(SLURM_STEP_NUM_TASKS=str(SIZE), SLURM_STEP_TASKS_PER_NODE=str(SIZE), MASTER_PORT=port)
    began, started = time.monotonic(), []
    for place in range(SIZE):
        os.environ.update(SLURM_PROCID=str(place), SLURM_LOCALID=str(place))
        started.append(get_context("fork").Process(target=rank, args=(str(out), *fault)))
        started[-1].start()
    for process in started:
        process.join(120)
    for name in [name for name in os.environ if name.startswith(("SLURM_", "MASTER_"))]:
        del os.environ[name]
    return {"status": [process.exitcode for process in started], "seconds": time.monotonic() - began}


def main(folder: Path, faults: list[str]) -> None:
    """``whole``: none. ``lost:RANK:STEP``: killed, and all are started again. Under srun, which
    starts nobody again, ``killed:RANK:STEP``, and ``usr1:RANK:STEP``: told to end."""
    found: dict[str, Any] = {}
    bat_fast([*WORDS.split(), "--out", str(folder / "none"), "--dry-run"])
    data.load("digits", seed=0)  # both load modules, which the ranks then have
    for fault in faults:
        word, *where = fault.split(":")
        out, place = folder / fault.replace(":", "-"), tuple(map(int, where))
        if word == "whole":
            found[fault] = torchrun(out, 0, 0, -1, 0)
        elif word == "lost":
            found[fault] = torchrun(out, 3, signal.SIGKILL, *place)
        else:
            found[fault] = srun(out, signal.SIGUSR1 if word == "usr1" else signal.SIGKILL, *place)
    (folder / "ended.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
