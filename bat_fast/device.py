"""Where a model runs."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def pick_device(name: str) -> str:
    """Choose a device, and make a GPU that is named by its number the current one of this thread.

    So whatever is made, timed or waited for without naming a device meets the right GPU.

    Args:
        name: ``auto`` is ``cuda`` where there is a GPU and ``cpu`` elsewhere; other names are checked.

    Returns:
        The name of the device: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ValueError: not a device of this machine.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r}: this machine has {torch.cuda.device_count()} GPUs")
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return name


def cpu_model() -> str:
    """The name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
