"""Timing of variants side by side: interleaved, so that drift of the machine meets all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from bat_fast.device import cpu_model


class Timing(NamedTuple):
    """Milliseconds of one call: median and quartiles over n calls."""

    median: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.median:9.3f} [{self.low:.3f}, {self.high:.3f}]"


def interleaved(
    variants: Mapping[str, Callable[[], object]],
    seconds: float,
    least: int = 7,
    warm: int = 2,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Timing]:
    """Time all variants in turns for about ``seconds`` (and ``least`` turns), after ``warm`` turns.

    A turn of a variant repeats it for about 2 ms, so that a short call is timed as a training loop meets it
    and not with the caches and the sleeping threads that the variant before it left behind.

    Args:
        variants: what to time, by name.
        seconds: for all together. Where the warm turns have taken longer already, one turn more is all.
        least: turns, at the least.
        warm: turns that do not count.
        tell: hears of the first turn of each variant that counts.
    """
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)
    samples: dict[str, list[float]] = {name: [] for name in variants}
    repeats = dict.fromkeys(variants, 1)
    start, turn = time.perf_counter(), -warm
    while turn < least or time.perf_counter() - start < seconds:
        if turn == 0 and time.perf_counter() - start > seconds:
            least = 1
        for name, run in variants.items():
            synchronize()
            begin = time.perf_counter()
            for _ in range(repeats[name]):
                run()
            synchronize()
            milliseconds = (time.perf_counter() - begin) * 1e3 / repeats[name]
            if turn >= 0:
                samples[name].append(milliseconds)
                if turn == 0 and tell is not None:
                    tell(f"{name}: {milliseconds:.1f} ms")
            else:
                repeats[name] = max(1, int(2.0 / milliseconds))
        turn += 1
    return {name: _summary(values) for name, values in samples.items()}


def interleaved_on_gpu(
    variants: dict[str, Callable[[], object]], seconds: float, least: int = 15
) -> dict[str, Timing]:
    """The same by CUDA events: time on the device alone, with nothing of the inputs left in its L2 cache.

    Clearing a large buffer evicts the cache, and keeps the device busy until the next call is queued.
    """
    flush = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    samples: dict[str, list[float]] = {name: [] for name in variants}
    start, turn = time.perf_counter(), -3
    while turn < least or time.perf_counter() - start < seconds:
        pairs = {name: [torch.cuda.Event(enable_timing=True) for _ in range(2)] for name in variants}
        for name, run in variants.items():
            flush.zero_()
            pairs[name][0].record()
            run()
            pairs[name][1].record()
        torch.cuda.synchronize()
        if turn >= 0:
            for name, (begin, end) in pairs.items():
                samples[name].append(begin.elapsed_time(end))
        turn += 1
    return {name: _summary(values) for name, values in samples.items()}


def gpu_ceilings() -> dict[str, float]:
    """What this device reaches now: a large copy (bytes read and written), a bf16 matrix product of noise."""
    source = torch.randint(0, 255, (4 << 30,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = interleaved_on_gpu({"copy": lambda: target.copy_(source), "gemm": lambda: a @ b}, 1.0)
    return {
        "copy_gb_per_s": 2 * source.nbytes / times["copy"].median / 1e6,
        "bf16_tflop_per_s": 2 * 8192**3 / times["gemm"].median / 1e9,
    }


def _summary(values: list[float]) -> Timing:
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return Timing(statistics.median(values), low, high, len(values))


def machine() -> str:
    """The processor, its threads in use, and the versions a figure depends on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{cpu_model()}, {torch.get_num_threads()} threads, {device}, torch {torch.__version__}"
