"""Timing of variants side by side: interleaved, so that drift of the machine meets all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch


class Timing(NamedTuple):
    """Milliseconds of one call: median and quartiles over n calls."""

    median: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.median:9.3f} [{self.low:.3f}, {self.high:.3f}]"


def interleaved(
    variants: dict[str, Callable[[], object]], seconds: float, least: int = 7
) -> dict[str, Timing]:
    """Time all variants in turns for about ``seconds`` (and ``least`` turns), after two warm-up turns."""
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)
    samples: dict[str, list[float]] = {name: [] for name in variants}
    start, turn = time.perf_counter(), -2
    while turn < least or time.perf_counter() - start < seconds:
        for name, run in variants.items():
            synchronize()
            begin = time.perf_counter()
            run()
            synchronize()
            if turn >= 0:
                samples[name].append((time.perf_counter() - begin) * 1e3)
        turn += 1
    return {name: _summary(values) for name, values in samples.items()}


def _summary(values: list[float]) -> Timing:
    low, _, high = statistics.quantiles(values, n=4)
    return Timing(statistics.median(values), low, high, len(values))


def machine() -> str:
    """The processor, its threads in use, and the versions a figure depends on."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    processor = f"{names[0] if names else 'unknown processor'}, {torch.get_num_threads()} threads"
    return f"{processor}, {device}, torch {torch.__version__}"
