"""What several processes cost: measured on 1 to 4 of this machine, simulated beside it, planned for GPUs.

    python bench/scaling.py measure     a BAT step on 1 to 4 ranks (Gloo, one thread each), and its simulation
    python bench/scaling.py plan        epochs of three networks on 1 to 64 GPUs; docs/scaling.md explains it

The simulation knows of a rank: a time for each step, a time for each of its images, both fitted to one
process, and how much steps vary; and of a link: a latency and a bandwidth, fitted to two processes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

import torch

NETWORK, SIZE, STEPS = "preactresnet18", 32, 2
SHARES, BATCH, RANKS = (4, 8, 16), 16, (1, 2, 3, 4)


class Link(NamedTuple):
    """How long a message takes: ``latency + bytes / bandwidth`` (seconds, bytes in a second)."""

    latency: float
    bandwidth: float


class Machine(NamedTuple):
    """Ranks that reach each other by ``inside``, and those of other nodes, each by its own, ``between``."""

    node: int  # ranks of a node
    inside: Link
    between: Link
    cores: int | None = None  # that the ranks of a node share; None: each has a device of its own


class Work(NamedTuple):
    """What a step asks of a rank."""

    fixed: float  # seconds: launches, the update of the weights
    image: float  # seconds
    spread: float  # of the time of a step, relative
    gradients: float  # bytes that are added up
    row: float  # bytes of an image that every rank gets: its logits, features and label
    collectives: int  # small ones: sizes, flags


def all_reduce(size: float, ranks: int, machine: Machine) -> float:
    """Seconds: rings within the nodes, and of one part of the sum each between them."""
    inside, nodes = min(ranks, machine.node), -(-ranks // machine.node)
    return _ring(size, inside, machine.inside) + _ring(size / inside, nodes, machine.between)


def _ring(size: float, ranks: int, link: Link) -> float:
    return 2 * (ranks - 1) * (link.latency + size / ranks / link.bandwidth)


def step_seconds(work: Work, machine: Machine, batch: int, ranks: int, samples: int = 400) -> float:
    """Mean seconds of a step, of a batch that all ranks share: the slowest rank, then the collectives."""
    draw = random.Random(0).gauss
    shares = [len(part) for part in torch.arange(batch).tensor_split(ranks)]
    waits = []
    for _ in range(samples):
        each = [(work.fixed + work.image * share) * max(0.0, draw(1, work.spread)) for share in shares]
        # Ranks that share cores keep all of them busy: done no sooner than their work, divided by the cores.
        shared = 0.0 if machine.cores is None else sum(each[: machine.node]) / machine.cores
        waits.append(max(max(each), shared))
    slowest = statistics.fmean(waits)
    if ranks == 1:
        return slowest
    talk = all_reduce(work.gradients, ranks, machine)
    rows = all_reduce(work.row * batch, ranks, machine) / 2  # gathered, which is half of a sum
    return slowest + talk + rows + work.collectives * all_reduce(8, ranks, machine) / 2


# --- Measured here. -----------------------------------------------------------------------------------------


def as_rank(batch: int, count: int) -> None:
    """One rank of `measure`: rank 0 prints the seconds of its steps and those of two all-reduces."""
    from bat_fast import Batch
    from bat_fast.config import AttackConfig, ModelConfig, TrainConfig
    from bat_fast.data import Shape
    from bat_fast.train.build import parts
    from bat_fast.train.meter import EpochMeter
    from bat_fast.world.launch import joined

    torch.set_num_threads(1)
    attack = AttackConfig(steps=STEPS)
    config = TrainConfig(
        batch_size=batch, device="cpu", method={"name": "bat"}, attack=attack, model=ModelConfig(name=NETWORK)
    )
    with joined() as world:
        step = parts(config, Shape(10, 3, SIZE), world=world).step
        step.model.train()
        ids = torch.arange(batch).tensor_split(world.size)[world.rank]
        x = torch.rand(len(ids), 3, SIZE, SIZE, generator=torch.Generator().manual_seed(world.rank))
        own, meter = Batch(x, ids % 10, ids), EpochMeter("cpu")
        found = {"step": _timed(lambda: step(own, 0, meter), count, world)}
        weights = sum(weight.numel() for weight in step.model.parameters())
        for name, size in (("small", 2), ("large", weights)):
            sums = torch.zeros(size)
            found[name] = _timed(lambda sums=sums: world.sum_([sums]), count, world)
        if world.first:
            sys.stderr.write(json.dumps(found | {"weights": weights}) + "\n")


def _timed(call, count, world):
    seconds = []
    for _ in range(count + 2):
        world.barrier()
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return seconds[2:]  # the first two build programs


def run(ranks: int, batch: int, count: int) -> dict[str, list[float]]:
    """``count`` steps of ``ranks`` processes that share ``batch`` images."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, "rank", "--batch", str(batch), "--count", str(count)]
    common = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    started = [
        subprocess.Popen(
            command,
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    outputs = [process.communicate()[1] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("\n".join(outputs))
    return json.loads(outputs[0].strip().splitlines()[-1])


def fast(seconds: list[float]) -> float:
    """The lower quartile: what else runs on a machine only ever adds."""
    return statistics.quantiles(seconds, n=4)[0]


def measure(count: int) -> None:
    """Fit to one process and to a link of two; predict 1 to 4; print both."""
    alone = {n: fast(run(1, n, count)["step"]) for n in SHARES}
    slope, fixed = statistics.linear_regression(list(alone), list(alone.values()))
    measured = {ranks: run(ranks, BATCH, count) for ranks in RANKS}
    two = measured[2]
    latency = fast(two["small"]) / 2
    size = 4.0 * two["weights"]
    bandwidth = size / max(1e-9, fast(two["large"]) - 2 * latency)
    steps = measured[1]["step"]
    middle = statistics.median(steps)
    spread = statistics.median(abs(step - middle) for step in steps) * 1.4826 / middle
    link = Link(latency, bandwidth)
    machine = Machine(max(RANKS), link, link, os.cpu_count())
    work = Work(max(fixed, 0.0), slope, spread, size, 4.0 * (10 + 512) + 16, 4)
    what = f"{NETWORK} {SIZE}x{SIZE}, BAT, PGD-{STEPS}, batch {BATCH}, {count} steps"
    print(f"{what}; {os.cpu_count()} cores, torch {torch.__version__}")
    print(f"a rank: {1e3 * fixed:.0f} ms + {1e3 * slope:.1f} ms an image, spread {100 * spread:.1f} %")
    print(f"a link: {1e6 * latency:.0f} us, {bandwidth / 1e9:.2f} GB/s; {size / 1e6:.1f} MB of gradients")
    print("| ranks | measured ms (quartiles) | simulated ms | beside the lower quartile |\n|---|---|---|---|")
    for ranks, found in measured.items():
        low, median, high = statistics.quantiles(found["step"], n=4)
        low = fast(found["step"])
        guess = step_seconds(work, machine, BATCH, ranks)
        print(
            f"| {ranks} | {1e3 * median:.0f} ({1e3 * low:.0f} to {1e3 * high:.0f}) | {1e3 * guess:.0f} "
            f"| {100 * (guess / low - 1):+.0f} % |"
        )


# --- Planned. -----------------------------------------------------------------------------------------------

NODE = Machine(8, Link(5e-6, 450e9), Link(10e-6, 50e9))
"""Eight H100 by NVLink 4 (450 GB/s each way), 400 Gbit/s of InfiniBand for each: figures of their makers."""
# Name: work of a rank, images of an epoch, images in a batch of one GPU. The first is fitted to measurements
# on one H100 (bench/results); the others follow from multiplications and passes.
PLANS: dict[str, tuple[Work, int, int]] = {
    "PreActResNet-18, Tiny ImageNet, BAT": (Work(12.5e-3, 0.254e-3, 0.02, 45.1e6, 2.9e3, 4), 100_000, 128),
    "WRN-28-10, CIFAR-10, BAT": (Work(20e-3, 0.60e-3, 0.02, 146e6, 2.7e3, 4), 50_000, 128),
    "ResNet-50, ImageNet, SAT": (Work(8e-3, 0.60e-3, 0.02, 102e6, 4.1e3, 4), 1_281_167, 256),
}


def plan() -> None:
    """Seconds of an epoch, and what is left of the speed of one GPU, at a fixed and at a growing batch."""
    print("| run | GPUs | batch | epoch s | efficiency | batch | epoch s | efficiency | talk |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, (work, images, batch) in PLANS.items():
        alone = images / batch * step_seconds(work, NODE, batch, 1)
        for ranks in (1, 8, 16, 64):
            cells = []
            for size in (max(batch, ranks), batch * ranks):
                step = step_seconds(work, NODE, size, ranks)
                epoch = images / size * step
                cells.append(f"{size} | {epoch:.1f} | {100 * alone / epoch / ranks:.0f} %")
            talk = 0.0 if ranks == 1 else all_reduce(work.gradients, ranks, NODE) / step
            print(f"| {name} | {ranks} | {cells[0]} | {cells[1]} | {100 * talk:.1f} % |")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("what", choices=["measure", "plan", "rank"])
    options.add_argument("--count", type=int, default=20, help="steps that are timed")
    options.add_argument("--batch", type=int, default=BATCH, help="of rank alone")
    asked = options.parse_args()
    if asked.what == "rank":
        as_rank(asked.batch, asked.count)
    elif asked.what == "plan":
        plan()
    else:
        measure(asked.count)


if __name__ == "__main__":
    main()
