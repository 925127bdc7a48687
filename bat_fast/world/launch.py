"""How the processes of a run meet, and how they end together. torch is loaded where there are several."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from bat_fast.world.ranks import World

_TIMEOUT = 1800.0  # seconds that a rank waits for the others, who may be validating or reading files
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
        ValueError: a variable is missing, or is no number.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if "SLURM_STEP_NUM_TASKS" in environ and "WORLD_SIZE" not in environ:  # of srun; sbatch alone has it not
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE")
    if int(environ.get(names[1], "1")) == 1:
        return None
    try:
        # srun writes 4(x2) for two machines with 4 tasks each.
        rank, size, local, here = (int(environ[name].partition("(")[0].partition(",")[0]) for name in names)
    except KeyError as error:
        raise ValueError(
            f"{names[1]} says that there are several processes, but {error} is missing"
        ) from None
    return Place(rank, size, local, max(here, local + 1))


@contextmanager
def joined(environ: Mapping[str, str] = os.environ) -> Iterator[World]:
    """Meet the other processes of the run; alone where there are none.

    NCCL carries what is on GPUs, Gloo what is on CPUs. What ranks other than 0 print goes nowhere. An
    exception on one rank ends all of them: the first that fails raises it, the others leave with status 1
    and say nothing.

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

    store = _meet(place, environ)
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
        if not _is_first_to_fail(store, error):
            raise SystemExit(1) from None
        time.sleep(2 * _POLL)  # the others learn of it from the store, which may end with this process
        if isinstance(error, dist.DistError) or "gloo" in str(error).lower():
            raise RuntimeError(f"another process has ended, or does not answer ({_short(error)})") from error
        raise
    dist.destroy_process_group()


def _meet(place: Place, environ: Mapping[str, str]) -> Any:
    """Make the process group; a store for notes."""
    import torch
    from torch import distributed

    dist: Any = distributed  # which says of few names that it exports them
    if "RANK" not in environ:  # of srun
        job = int(environ.get("SLURM_JOB_ID", "0"))
        os.environ.setdefault("MASTER_ADDR", environ.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1"))
        os.environ.setdefault("MASTER_PORT", str(20000 + job % 20000))
        os.environ.setdefault("RANK", str(place.rank))
        os.environ.setdefault("WORLD_SIZE", str(place.size))
    patience = timedelta(seconds=float(environ.get("BAT_FAST_TIMEOUT", _TIMEOUT)))
    gpus = torch.cuda.is_available() and torch.cuda.device_count() >= place.local_size
    if gpus:
        torch.cuda.set_device(place.local_rank)
    store, _, _ = next(iter(dist.rendezvous("env://", timeout=patience)))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if gpus else "gloo",
        store=dist.PrefixStore("group", store),
        rank=place.rank,
        world_size=place.size,
        timeout=patience,
    )
    return dist.PrefixStore("bat_fast", store)


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
def _quiet(rank: int) -> Iterator[None]:
    """Nothing is printed by ranks other than 0, but for errors."""
    if rank == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), warnings.catch_warnings():  # noqa: PTH123
        warnings.simplefilter("ignore")
        yield


def _short(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def said_by(environ: Mapping[str, str] = os.environ) -> str:
    """``rank 2: `` before what a process of several says, nothing before that of one alone."""
    size = environ.get("WORLD_SIZE", environ.get("SLURM_STEP_NUM_TASKS", "1"))
    return "" if size == "1" else f"rank {environ.get('RANK', environ.get('SLURM_PROCID'))}: "
