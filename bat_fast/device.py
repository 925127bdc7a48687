"""Where a model runs."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch

from bat_fast._environ import whole


def pick_device(name: str, place: int = 0, of: int = 1) -> str:
    """Choose a device, and make a GPU that is named by its number the current one of this thread.

    So whatever is made, timed or waited for without naming a device meets the right GPU.

    Args:
        name: ``auto`` is ``cuda`` where there is a GPU and ``cpu`` elsewhere; other names are checked.
        place, of: which of how many processes of a run on this machine this is: each has its own GPU.

    Returns:
        The name of the device: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ValueError: not a device of this machine.
    """
    if name == "auto" and (of == 1 or not torch.cuda.is_available()):
        return "cuda" if torch.cuda.is_available() else "cpu"
    check_name(name)
    if of > 1 and not name.startswith("cpu"):
        name = _own_gpu(name, place, of)
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r}: this machine has {torch.cuda.device_count()} GPUs")
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return name


def _own_gpu(name: str, place: int, of: int) -> str:
    if name not in ("auto", "cuda"):
        raise ValueError(
            f"device {name!r} is one for {of} processes: leave it out, and each takes its own GPU"
        )
    if of > torch.cuda.device_count():
        raise ValueError(
            f"{of} processes share this machine, which has {torch.cuda.device_count()} GPUs: start one for "
            "each GPU, or take --device cpu"
        )
    return f"cuda:{place}"


def cores() -> int:
    """The cores that this process may keep busy: its share, where several of a run are on this machine."""
    return max(1, (os.cpu_count() or 1) // whole(os.environ, "LOCAL_WORLD_SIZE", 1, least=1))


def check_name(name: str) -> None:
    """Raise ValueError unless ``name`` is a device that bat_fast computes on, of whatever machine."""
    if not re.fullmatch(r"auto|cpu(:0)?|cuda(:\d+)?", name):
        here = ", ".join(["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))])
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}; this machine has {here}")


def layout(device: str | torch.device) -> torch.memory_format:
    """The memory format of models and images on ``device``: channels_last on a GPU, whose convolutions in
    TF32 and 16 bits compute in it, and lay everything else out anew."""
    on_gpu = torch.device(device).type == "cuda"
    return torch.channels_last if on_gpu else torch.contiguous_format


def set_backends(tf32: bool | None, benchmark: bool | None, *, deterministic: bool = False) -> None:
    """Switches of torch for this process.

    Args:
        tf32: convolutions and matrix products of float32 in TF32; None leaves both as they are.
        benchmark: cuDNN times its algorithms for each new shape; None leaves it as it is.
        deterministic: only kernels that give the same bits again; False leaves it as it is.

    Raises:
        ValueError: ``deterministic`` with ``benchmark``, which may choose other kernels each time.
    """
    if deterministic:
        if benchmark:
            raise ValueError(
                "deterministic does not go with cuda.benchmark (--speed fast): say --cuda.benchmark false"
            )
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    if tf32 is not None:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    if benchmark is not None:
        torch.backends.cudnn.benchmark = benchmark


def cpu_model() -> str:
    """The name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
