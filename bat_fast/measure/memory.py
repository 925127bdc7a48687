"""How much memory a call takes, and how much there is."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

_MIB = 2**20
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def growth_mib(run: Callable[[], object], device: str) -> float | None:
    """Growth of the peak of memory in MiB during one call; None where the system does not tell."""
    run()  # what is made once is made
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / _MIB
    try:
        _forget_peak()
        before = _kib("VmRSS")
        run()
        return (_kib("VmHWM") - before) / 1024
    except OSError:
        return None


def peak_mib(run: Callable[[], object], device: str) -> float:
    """The most memory in MiB that was in use during one call, with all that was there before.

    On a CPU that of the whole process, on a GPU that of all tensors.

    Raises:
        OSError: the system does not tell.
    """
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) / _MIB
    with _explained():
        _forget_peak()
    run()
    return _kib("VmHWM") / 1024


def free_mib(device: str, root: Path = Path("/")) -> float:
    """Memory in MiB that this process could have in all: what it holds, and what is free.

    On a CPU the least that the machine and the control groups of the process leave.

    Args:
        device: ``cpu`` or ``cuda:N``.
        root: where ``proc`` and ``sys`` are.

    Raises:
        OSError: the system does not tell.
    """
    if device.startswith("cuda"):
        return (torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)) / _MIB
    with _explained():
        text = (root / "proc/meminfo").read_text()
        (machine,) = re.findall(r"MemAvailable: *(\d+) kB", text)
        return min([int(machine) * 1024, *_free_in_groups(root)]) / _MIB + _kib("VmRSS") / 1024


def _free_in_groups(root: Path) -> list[int]:
    """Bytes below the limit of each control group, of version 2 or 1, that the process is in."""
    found = []
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        number, kinds, path = line.split(":", 2)
        if number == "0":
            base, limit, used = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in kinds.split(","):
            base, limit = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
            used = "memory.usage_in_bytes"
        else:
            continue
        group = base / path.strip("/")
        for folder in (group, *group.parents):  # a limit above holds too; in a container the path may lack
            with suppress(OSError, ValueError):  # "max" is no limit
                most = int((folder / limit).read_text())
                found.append(most - int((folder / used).read_text()) + _reclaimable(folder))
            if folder == base:
                break
    return found


def _reclaimable(group: Path) -> int:
    """Bytes of files that the group has read and does not use."""
    text = (group / "memory.stat").read_text()
    return int((re.findall(r"^(?:total_)?inactive_file (\d+)$", text, re.MULTILINE) or ["0"])[-1])


def mib(text: str) -> float:
    """``8GiB``, ``600MB`` or a number of bytes, in MiB.

    Raises:
        ValueError: it is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMGT]?)(?:I?B)?", text.strip().upper())
    if match is None or not float(match[1]):
        raise ValueError(f"expected a size such as 8GiB or 600MiB, got {text!r}")
    return float(match[1]) * _UNITS[match[2]] / _MIB


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(f"memory cannot be measured: a CPU needs the /proc of Linux ({error})") from None


def _forget_peak() -> None:
    """Forget the peak of the resident memory, and hold no more than is in use."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc: give back what is free
    _RESET.write_text("5")


def _kib(name: str) -> int:
    (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1])
