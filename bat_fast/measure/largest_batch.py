"""The largest batch whose whole training step, attack and update, fits into memory."""

from __future__ import annotations

import gc
import re
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from bat_fast.config import TrainConfig
from bat_fast.measure.memory import free_mib, peak_mib
from bat_fast.measure.workload import RandomWorkload

_SHARE_CPU, _SHARE_GPU = 0.8, 0.9  # of what is free: the rest is for data and the unforeseen
_ENOUGH = 512.0  # MiB from the smallest to the largest size measured: they are known to some 20
_MOST = 2**16  # images, where the size of the training set is not known
_STEPS = 2  # of the attack: more take no more memory
_FULL = re.compile("out.of.memory|alloc(ation)?_failed", re.IGNORECASE)  # of torch, CUDA, cuBLAS and cuDNN
_NO_ENGINE = "unable to find an engine"  # cuDNN: no workspace was left, or nothing can compute this at all


@dataclass
class Found:
    """What was measured, and what follows from it."""

    memory: dict[int, float | None] = field(default_factory=dict)
    """Batch size -> peak in MiB; None where it did not fit."""
    largest: int = 0
    """The largest batch that fits; 0 where none does."""
    largest_mib: float | None = None
    """Its peak, measured or predicted."""
    check: dict[str, float] | None = None
    """A prediction that was measured afterwards: ``batch_size``, ``predicted_mib``, ``measured_mib``."""


def largest_batch(config: TrainConfig, budget: float | None = None) -> dict[str, Any]:
    """Find the largest batch, taken in one part, that the training step of ``config`` can have here.

    On a GPU sizes are tried until one does not fit (`search`), within a limit set to the budget. On a CPU the
    system would end the process, so small sizes are measured and the rest follows from a line (`predict`).

    Args:
        config: model, method, attack and device, as for training; ``batch_size`` and ``optim.micro_batches``
            are what the answer is about.
        budget: MiB: of the whole process on a CPU, of all tensors on a GPU; None is 80 % (GPU: 90 %) of what
            the process holds and could have.

    Returns:
        The fields of `Found`, ``budget_mib``, ``wanted`` (the batch size of the configuration),
        ``micro_batches`` (the parts that it must be cut into; None where nothing fits), ``rows`` (what was
        measured: ``batch_size`` and ``memory_mib``, None where it was too much), and what it is about.

    Raises:
        ValueError: a setting is out of range. OSError: the system does not tell how much memory there is.
    """
    workload = RandomWorkload(config)
    attack = replace(config.attack, steps=min(config.attack.steps, _STEPS))
    short = replace(config, attack=attack, optim=replace(config.optim, micro_batches=1))
    gpu, most = workload.device.startswith("cuda"), workload.images or _MOST
    if budget is None:
        budget = (_SHARE_GPU if gpu else _SHARE_CPU) * free_mib(workload.device)

    def peak(size: int) -> float:
        return peak_mib(lambda: _two_steps(workload, short, size), workload.device)

    if gpu:
        with _limited(torch.device(workload.device), budget):
            found = search(peak, most)
    else:
        found = predict(peak, budget, most)
    return {
        "model": config.model.name, "images": workload.size(1)[1:], "method": config.method["name"],
        "device": workload.device, "budget_mib": budget, "wanted": config.batch_size, "most": most,
        "rows": [{"batch_size": size, "memory_mib": mib} for size, mib in sorted(found.memory.items())],
        "largest": found.largest, "largest_mib": found.largest_mib, "check": found.check,
        "micro_batches": -(-config.batch_size // found.largest) if found.largest else None,
    }  # fmt: skip


@contextmanager
def _limited(device: torch.device, budget: float) -> Iterator[None]:
    """Tensors on a GPU take no more than ``budget`` MiB inside, and torch holds nothing unused afterwards."""
    index = torch.cuda.current_device() if device.index is None else device.index
    total = torch.cuda.get_device_properties(index).total_memory / 2**20
    torch.cuda.set_per_process_memory_fraction(min(1.0, budget / total), index)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, index)
        gc.collect()
        torch.cuda.empty_cache()


def _two_steps(workload: RandomWorkload, config: TrainConfig, size: int) -> None:
    """The first step takes the attack apart, the second has the state of the optimiser."""
    step = workload.step(config, workload.model(), workload.batch(size))
    for _ in range(2):
        step()


def search(attempt: Callable[[int], float], most: int) -> Found:
    """Try sizes: doubled from 8 until one does not fit, then halfway in between.

    Args:
        attempt: the peak in MiB of a batch size; raises what torch does where memory is exhausted.
        most: the largest size of interest.

    Raises:
        RuntimeError: what ``attempt`` raised, and what has to do with something else than memory.
    """
    found, doubts = Found(), list[str]()

    def fits(size: int) -> bool:
        found.memory[size] = _tried(attempt, size, doubts)
        return found.memory[size] is not None

    size = _rounded(min(8, most))
    while fits(size) and size < _rounded(most):
        found.largest, size = size, _rounded(min(2 * size, most))
    low, high = (size, size) if found.memory[size] is not None else (found.largest, size)
    while high - low > (unit := 8 if low >= 8 else 1):
        middle = low + max(unit, (high - low) // 2 // unit * unit)
        low, high = (middle, high) if fits(middle) else (low, middle)
    if doubts and not low:
        raise RuntimeError(doubts[-1])
    found.largest, found.largest_mib = low, found.memory.get(low)
    return found


def _tried(attempt: Callable[[int], float], size: int, doubts: list[str]) -> float | None:
    """The peak, or None; by the time it returns, what a failed attempt held is free again.

    An error that lack of memory may explain, or something else, goes to ``doubts``.
    """
    try:
        return attempt(size)
    except RuntimeError as error:  # torch.OutOfMemoryError is one; what cuBLAS and cuDNN raise is not
        text = str(error)
        if _NO_ENGINE in text:
            doubts.append(text)
        elif not isinstance(error, torch.OutOfMemoryError) and not _FULL.search(text):
            raise
    gc.collect()  # the error has gone with its traceback, which held every tensor
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return None


def predict(measure: Callable[[int], float], budget: float, most: int) -> Found:
    """Measure small sizes, lay a line through the last three, and check it at twice the last one.

    Args:
        measure: the peak in MiB of a batch size. From the third size on it is asked only for what should fit.
        budget: in MiB.
        most: the largest size of interest.
    """
    memory: dict[int, float] = {}
    size = min(2, most)
    while size <= most and (len(memory) < 2 or _line(memory)(size) <= budget):
        memory[size] = measure(size)
        grown = memory[size] - min(memory.values())
        if memory[size] > budget or (grown >= _ENOUGH and len(memory) >= 3):
            break
        size *= 2
    found = Found({**memory})
    last, end = max(memory), _end(memory, budget, most)
    if end > last:
        size = min(2 * last, end)
        predicted, memory[size] = _line(memory)(size), measure(size)
        found = Found({**memory})
        found.check = {"batch_size": size, "predicted_mib": predicted, "measured_mib": memory[size]}
    found.largest = max([_end(memory, budget, most), *(n for n, mib in memory.items() if mib <= budget)])
    if found.largest:
        found.largest_mib = memory[found.largest] if found.largest in memory else _line(memory)(found.largest)
    return found


def _end(memory: dict[int, float], budget: float, most: int) -> int:
    """The size at which the line meets the budget, below all that was found not to fit."""
    if len(memory) < 2:
        return 0
    line = _line(memory)
    growth = line(1) - line(0)
    size = most if growth <= 0 else min(most, (budget - line(0)) / growth)
    size = min([size, *(n - 1 for n, mib in memory.items() if mib > budget)])
    return _rounded(max(0.0, size))


def _line(memory: dict[int, float]) -> Callable[[int], float]:
    """MiB of a batch size, by the largest three that were measured."""
    sizes = sorted(memory)[-3:]
    if len(sizes) == 1:
        return lambda _: memory[sizes[0]]
    slope, start = statistics.linear_regression(sizes, [memory[size] for size in sizes])
    return lambda size: start + slope * size


def _rounded(size: float) -> int:
    """Down to a multiple of 8, which suits the kernels, where it is above 8."""
    return int(size) if size < 8 else int(size) // 8 * 8
