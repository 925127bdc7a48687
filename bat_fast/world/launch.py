"""How the processes of a run meet, and how they end together. torch is loaded where there are several."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from bat_fast._environ import whole

if TYPE_CHECKING:
    from bat_fast.world.ranks import World

_TIMEOUT = 1800.0  # seconds that a rank waits for the others, who may be validating or reading files
_LONGEST = 1e8  # seconds, three years: torch counts a timeout in milliseconds
_POLL = 0.5  # seconds
_FAILED = "failed"


class Place(NamedTuple):
    """Which of how many processes this one is, in all and on its machine."""

    rank: int
    size: int
    local_rank: int
    local_size: int


def place_in(environ: Mapping[str, str]) -> Place | None:
    """The place that ``torchrun``, or ``srun``, has given this process; None where it is alone.

    Raises:
        ValueError: a variable is missing, is no number, or is none that the others allow.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if "SLURM_STEP_NUM_TASKS" in environ and "WORLD_SIZE" not in environ:  # of srun; sbatch alone has it not
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE")
    # srun writes 4(x2) for two machines with 4 tasks each.
    said = {name: environ[name].partition("(")[0].partition(",")[0] for name in names if name in environ}
    if whole(said, names[1], 1, least=1) == 1:
        return None
    try:
        rank, size, local, here = (whole(said, name) for name in names)
    except KeyError as error:
        raise ValueError(
            f"{names[1]} says that there are several processes, but {error} is missing"
        ) from None
    if rank >= size:
        raise ValueError(f"{names[0]} must be below {names[1]}={size}, got {rank}")
    return Place(rank, size, local, max(here, local + 1))


@contextmanager
def joined(environ: Mapping[str, str] = os.environ, patience: float = _TIMEOUT) -> Iterator[World]:
    """Meet the other processes of the run; alone where there are none.

    NCCL carries what is on GPUs, Gloo what is on CPUs. What ranks other than 0 print goes nowhere. An
    exception on one rank ends all of them: the first that fails raises it, the others leave with status 1
    and say nothing.

    Args:
        environ: what ``torchrun`` or ``srun`` says.
        patience: seconds that a process waits for the others, where ``BAT_FAST_TIMEOUT`` says nothing else.

    Raises:
        ValueError: the environment is incomplete. RuntimeError: another process has gone.
    """
    place = place_in(environ)
    if place is None:
        from bat_fast.world.ranks import ALONE

        yield ALONE
        return
    from torch import distributed as dist

    from bat_fast.world.ranks import Ranks

    store = _meet(place, environ, patience)
    world, ended = Ranks(store, place.local_rank, place.local_size), threading.Event()
    threading.Thread(target=_watch, args=(store, ended, place.rank), daemon=True).start()
    try:
        with _quiet(place.rank):
            yield world
        ended.set()  # whoever is done may leave, and the store with it
        world.barrier()
    except BaseException as error:
        ended.set()
        if isinstance(error, KeyboardInterrupt) and world.stopping:  # all ranks stop at this step
            if world.first:
                raise
            raise SystemExit(getattr(error, "status", 130)) from None
        with _without_sigterm():
            if not _is_first_to_fail(store, error):
                raise SystemExit(1) from None
            time.sleep(2 * _POLL)  # the others learn of it from the store, which may end with this process
        if isinstance(error, dist.DistError) or "gloo" in str(error).lower():
            raise RuntimeError(
                "another process has ended, or does not answer: its own last line may say why; without one "
                "it was killed, for want of memory or with its machine"
            ) from error
        raise
    dist.destroy_process_group()


def _meet(place: Place, environ: Mapping[str, str], usual: float) -> Any:
    """Make the process group; a store for notes."""
    import torch
    from torch import distributed

    dist: Any = distributed  # which says of few names that it exports them
    if "RANK" not in environ:  # of srun
        job = whole(environ, "SLURM_JOB_ID", 0)
        os.environ.setdefault("MASTER_ADDR", environ.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1"))
        os.environ.setdefault("MASTER_PORT", str(20000 + job % 20000))
        os.environ.setdefault("RANK", str(place.rank))
        os.environ.setdefault("WORLD_SIZE", str(place.size))
    whole(os.environ, "MASTER_PORT", 0)  # torch reads it, and does not say which of the four was wrong
    patience = timedelta(seconds=_patience(environ, usual))
    gpus = torch.cuda.is_available() and torch.cuda.device_count() >= place.local_size
    if gpus:
        torch.cuda.set_device(place.local_rank)
    store, _, _ = next(iter(dist.rendezvous("env://", timeout=patience)))
    store = dist.PrefixStore(_round(store, place, patience), store)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if gpus else "gloo",
        store=dist.PrefixStore("group", store),
        rank=place.rank,
        world_size=place.size,
        timeout=patience,
    )
    return dist.PrefixStore("bat_fast", store)


def _patience(environ: Mapping[str, str], usual: float) -> float:
    """Seconds that a process waits for the others."""
    text = environ.get("BAT_FAST_TIMEOUT", str(usual))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _LONGEST:
        raise ValueError(
            f"BAT_FAST_TIMEOUT must be seconds > 0 and <= {_LONGEST:g}, got {text!r}: unset it, or correct it"
        )
    return seconds


def _round(store: Any, place: Place, patience: timedelta) -> str:
    """A name that the processes have in common, and those before a restart had not.

    The agent of torchrun keeps its store over a restart, with the addresses of those that are gone. So each
    process asks under a name of its own, and rank 0 answers whoever asks until all have heard it.
    """
    name, deadline = uuid4().hex, time.monotonic() + patience.total_seconds()
    if place.rank:
        store.set(f"asks/{place.rank}", name)
        name = store.get(f"answer/{name}").decode()
        store.set(f"heard/{name}/{place.rank}", "")
        return name
    missing = set(range(1, place.size))
    while missing:
        for rank in missing:
            if store.check([f"asks/{rank}"]):
                store.set(f"answer/{store.get(f'asks/{rank}').decode()}", name)
        missing = {rank for rank in missing if not store.check([f"heard/{name}/{rank}"])}
        if time.monotonic() > deadline:
            raise RuntimeError(f"rank {min(missing)} of {place.size} has not come")
        time.sleep(_POLL / 10)
    return name


def _watch(store: Any, ended: threading.Event, rank: int) -> None:
    """End this process when another has failed: in a collective on a GPU it may wait for it without end."""
    while not ended.wait(_POLL):
        try:
            failed = store.check([_FAILED])
        except RuntimeError:  # rank 0, or torchrun, which kept the store
            failed = not ended.is_set()
        if failed and rank == 0 and not ended.is_set():
            time.sleep(2 * _POLL)  # the store may end with this process, and the others ask it too
        if failed and not ended.is_set():
            os._exit(1)


def _is_first_to_fail(store: Any, error: BaseException) -> bool:
    """Whether nobody has failed before; a process that only lost the others leaves the word to them."""
    if "Connection closed by peer" in str(error):
        time.sleep(2 * _POLL)
    try:
        return bool(store.add(_FAILED, 1) == 1)
    except RuntimeError:  # whoever kept the store has gone without a word
        return True


@contextmanager
def _without_sigterm() -> Iterator[None]:
    """The agent of torchrun sends it at once to those who are left; they end anyhow, and say why."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _quiet(rank: int) -> Iterator[None]:
    """Nothing is printed by ranks other than 0, but for errors."""
    if rank == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), warnings.catch_warnings():  # noqa: PTH123
        warnings.simplefilter("ignore")
        yield


def said_by(environ: Mapping[str, str] = os.environ) -> str:
    """``rank 2: `` before what a process of several says, nothing before that of one alone."""
    size = environ.get("WORLD_SIZE", environ.get("SLURM_STEP_NUM_TASKS", "1"))
    rank = environ.get("RANK", environ.get("SLURM_PROCID"))
    return "" if size == "1" or rank is None else f"rank {rank}: "
