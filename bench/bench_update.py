"""The update of the weights with ``optim.compile`` beside the one without, and the attack left out.

    python bench/bench_update.py                    the network of the digits demo, and PreActResNet-18
    python bench/bench_update.py --device cuda      64x64, batch 128

Two copies of a network learn from the same images with the loss of BAT: forward, backward, SGD. They take
turns, and what counts is the median of the ratios of the turns. Also printed: how long the first update of
the compiled one took, and that both have lost the same by then.
"""

from __future__ import annotations

import copy
import statistics
import time
from typing import Any

import torch
from by_hand import ALPHA, BETA, TEMPERATURE
from options import parser, write
from torch import nn

from bat_fast import Batch, methods, models
from bat_fast.measure.timing import machine
from bat_fast.train.allocator import keep_freed_memory
from bat_fast.train.learner import Autocast, Compiled

_WARM = 3


class Update:
    """A call makes one update of ``model`` by way of ``learner`` on ``batch``, and returns the loss."""

    def __init__(self, model: nn.Module, learner: nn.Module, batch: Batch) -> None:
        self.learner, self.batch = learner, batch
        self.method = methods.create("bat", alpha=ALPHA, beta=BETA, temperature=TEMPERATURE)
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def __call__(self) -> float:
        loss = self.method(self.learner, self.batch, self.batch.x, 0).total
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())  # waits for a GPU


def compare(
    model: nn.Module, shape: tuple[int, ...], device: str, precision: str, seconds: float
) -> dict[str, Any]:
    x, y = torch.rand(shape, device=device), torch.randint(0, model.num_classes, shape[:1], device=device)
    if device == "cuda":
        model, x = (t.to(memory_format=torch.channels_last) for t in (model, x))
    batch = Batch(x, y, torch.arange(len(x), device=device))
    sides = {}
    for name in ("plain", "compiled"):
        twin = copy.deepcopy(model).train()
        learner = Compiled(twin) if name == "compiled" else twin
        sides[name] = Update(twin, Autocast(learner) if precision == "bf16" else learner, batch)
    begin = time.perf_counter()
    first = {"compiled": sides["compiled"]()}
    took = time.perf_counter() - begin
    first["plain"] = sides["plain"]()
    times: dict[str, list[float]] = {name: [] for name in sides}
    start, turn = time.perf_counter(), -_WARM
    while turn < 7 or time.perf_counter() - start < seconds:
        for name, update in sides.items():
            begin = time.perf_counter()
            update()
            if turn >= 0:
                times[name].append(1e3 * (time.perf_counter() - begin))
        turn += 1
    ratios = [a / b for a, b in zip(times["plain"], times["compiled"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"{type(model).__name__} {list(shape)} {precision}: plain {medians['plain']:.2f} ms, compiled "
        f"{medians['compiled']:.2f} ms, {middle:.2f} x [{low:.2f}, {high:.2f}], n = {len(ratios)}; first "
        f"update {took:.0f} s, losses {first['plain']:.6f} and {first['compiled']:.6f}",
        flush=True,
    )
    return {
        "model": type(model).__name__, "images": list(shape), "precision": precision, "ms": medians,
        "ratio": middle, "quartiles": [low, high], "n": len(ratios), "first_s": took, "first_loss": first,
    }  # fmt: skip


def main() -> None:
    command = parser(__doc__, 10.0, "each comparison")
    command.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    options = command.parse_args()
    keep_freed_memory()
    side, size = (64, 128) if options.device == "cuda" else (32, 32)
    digits = {"num_classes": 10, "in_channels": 1, "image_size": 8}
    wanted = [
        ("small_cnn", digits, (128, 1, 8, 8), ["fp32"]),
        ("preactresnet18", {"num_classes": 10}, (size, 3, side, side), options.precisions),
    ]
    print(machine())
    rows: list[dict[str, Any]] = []
    for name, how, shape, precisions in wanted:
        for precision in precisions:
            torch.manual_seed(0)
            model = models.create(name, **how).to(options.device)
            rows.append(compare(model, shape, options.device, precision, options.seconds))
            write(options.json, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
