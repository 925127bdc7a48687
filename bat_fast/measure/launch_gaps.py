"""Launch gaps: how long a GPU waits for its next kernel, and what the host starts on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

_STARTS = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch", "cuGraphLaunch", "cudaMemcpy", "cudaMemset")
_CALLS = 3  # one after the other: the host may prepare the next call while the device is busy


def launch_gaps(run: Callable[[], object], device: str) -> float | None:
    """Share of the time of ``run``, called again and again, in which no kernel runs; None on a CPU.

    From the first kernel to the end of the last one. Recording delays the host a little, never the device.
    """
    if not device.startswith("cuda"):
        return None
    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(_CALLS):
            run()
        torch.cuda.synchronize(device)
    return idle_share(kernels(profiler.events() or ()))


def launches(run: Callable[[], object], device: str) -> Counter[str] | None:
    """What the host starts on the GPU in one call of ``run``, by the name of what it calls; None on a CPU.

    A graph is one launch, whatever it holds.
    """
    if not device.startswith("cuda"):
        return None
    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize(device)
    names = (event.name for event in profiler.events() or () if event.device_type.name == "CPU")
    return Counter(name for name in names if name.startswith(_STARTS))


def kernels(events: Iterable[Any]) -> list[tuple[float, float]]:
    """Start and end of what ran on the GPU, copies too: not the calls of the host, not the ranges that have
    only a name."""
    return [
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type.name == "CUDA" and not event.is_user_annotation
    ]


def idle_share(intervals: Iterable[tuple[float, float]]) -> float | None:
    """Share of the time from the first start to the last end that no interval covers; None without any."""
    busy, first, last = 0.0, None, 0.0
    for start, end in sorted(intervals):
        if first is None:
            first = last = start
        busy += max(0.0, end - max(start, last))
        last = max(last, end)
    return None if first is None or last <= first else 1 - busy / (last - first)
