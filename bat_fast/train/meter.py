"""What an epoch of training measures, kept on the device until the epoch ends."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from bat_fast.methods.base import Terms


class EpochMeter:
    """Means over the samples of an epoch, and its speed. Reading it is the only host synchronisation."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._cuda = torch.device(device).type == "cuda"
        self._sums: dict[str, Tensor] = {}
        self._samples = 0
        self._attacks: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._attack_s = 0.0
        self._steps = self._left_out = 0
        self._began = time.perf_counter()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(device)

    @contextmanager
    def attack(self) -> Iterator[None]:
        """Times the attack of one step, on a GPU with events (no synchronisation)."""
        self._steps += 1
        if not self._cuda:
            began = time.perf_counter()
            yield
            self._attack_s += time.perf_counter() - began
            return
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record(torch.cuda.current_stream(self._device))
        yield
        last.record(torch.cuda.current_stream(self._device))
        self._attacks.append((first, last))

    def add(self, terms: Terms, samples: int) -> None:
        """Count one step on ``samples`` images."""
        self._samples += samples
        for name, value in {"loss": terms.total, **terms.metrics}.items():
            weighted = value.detach() * samples
            self._sums[name] = self._sums[name] + weighted if name in self._sums else weighted

    def leave_out(self) -> None:
        """Count one update that was not made."""
        self._left_out += 1

    def state_dict(self) -> dict[str, Any]:
        """What has been measured so far. Waits for the device."""
        self._collect()
        elapsed = time.perf_counter() - self._began
        return {
            "sums": dict(self._sums),
            "counts": [self._samples, self._steps, self._left_out],
            "seconds": [self._attack_s, elapsed],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._sums = {name: value.to(self._device) for name, value in state["sums"].items()}
        self._samples, self._steps, *more = state["counts"]
        self._left_out = more[0] if more else 0  # older runs have counted none
        self._attack_s, elapsed = state["seconds"]
        self._began = time.perf_counter() - elapsed

    def _collect(self) -> None:
        """Add up the attacks that the GPU has timed."""
        if self._attacks:
            torch.cuda.synchronize(self._device)
            self._attack_s += sum(first.elapsed_time(last) for first, last in self._attacks) / 1e3
            self._attacks.clear()

    def means(self) -> dict[str, float]:
        """``train/...`` metrics: means over the samples so far, and ``train/left_out``, the number of
        updates that were not made, where there are any. Waits for the device."""
        if not self._sums:  # nothing yet, or nothing but updates that were not made
            return {"train/loss": math.nan, "train/left_out": float(self._left_out)} if self._left_out else {}
        values = torch.stack([value.double() for value in self._sums.values()]) / self._samples
        means = {f"train/{name}": value for name, value in zip(self._sums, values.tolist(), strict=True)}
        return means | ({"train/left_out": float(self._left_out)} if self._left_out else {})

    def images_per_second(self) -> float:
        """Images counted so far over the time since the epoch began."""
        return self._samples / (time.perf_counter() - self._began)

    def speed(self) -> dict[str, float]:
        """``perf/...`` metrics: images per second, mean milliseconds of an attack, peak memory in MiB, and
        seconds since the epoch began."""
        self._collect()
        peak = torch.cuda.max_memory_allocated(self._device) / 2**20 if self._cuda else _resident_mib()
        return {
            "perf/img_s": self.images_per_second(),
            "perf/attack_ms": 1e3 * self._attack_s / max(1, self._steps),
            "perf/peak_mem_mib": peak,
            "perf/epoch_s": time.perf_counter() - self._began,
        }


def _resident_mib() -> float:
    """Peak resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
