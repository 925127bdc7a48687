"""PGD-10 and the BAT training step against the same as repositories write them, in one run.

    python bench/bench_step.py            the step of the digits demo
    python bench/bench_step.py --resnet   also PreActResNet-18: 32x32, batch 32; on CUDA 64x64, batch 128
    python bench/bench_step.py --resnet --batch_sizes 128 512

All sides train the same network on the same images with PGD-10, the BAT weights and the discrimination
loss, in the styles of `by_hand.py`: "repository" keeps batch norm in train mode throughout, "torchattacks"
attacks in eval mode, "hand" folds the network anew for every attack and takes bf16 where that pays.
Prints medians and quartiles of interleaved calls, and the ratios; TF32 is on for all sides on CUDA.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from by_hand import STEPS, folded, hand_pgd, hand_step, repository_pgd, repository_step, torchattacks_pgd
from fast_step import FastStep
from options import parser, write
from torch import Tensor, nn

from bat_fast import models
from bat_fast.measure.timing import interleaved, machine
from bat_fast.train.allocator import keep_freed_memory

EPS = 0.15


def torchattacks(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The attack of a library, which leaves train mode for it."""
    adv = torchattacks_pgd(model.eval(), x, y, EPS)
    model.train()
    return adv


def sides(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, dict[str, Callable[[], Any]]]:
    """The attack alone and the whole step, in every style, each on a copy of its own."""

    def copied(last: bool = False) -> tuple[nn.Module, torch.optim.Optimizer]:
        twin = copy.deepcopy(model).train()
        twin = twin.to(memory_format=torch.channels_last) if last else twin
        return twin, torch.optim.SGD(twin.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    repository, peer, images = copied(), copied()[0], x.to(memory_format=torch.channels_last)
    attack: dict[str, Callable[[], Any]] = {
        "repository": lambda: repository_pgd(repository[0], x, y, EPS),
        "torchattacks": lambda: torchattacks(peer, x, y),
    }
    step: dict[str, Callable[[], Any]] = {"repository": lambda: repository_step(*repository, x, y, EPS)}
    # 16-bit convolutions repay themselves from a certain size on.
    wide = x[0].numel() >= 3 * 32 * 32
    expert, kind = copied(last=True), torch.bfloat16 if wide else torch.float32
    attack["hand"] = lambda: hand_pgd(folded(expert[0], kind), images, y, EPS, kind)
    step["hand"] = lambda: hand_step(*expert, images, y, EPS, kind)
    for precision in (None, "bf16") if wide else (None,):
        fast = FastStep(*copied(last=x.shape[1] > 1), EPS, precision)
        name = f"bat_fast {precision or 'fp32'}"
        attack[name] = lambda fast=fast: fast.attack(images, y)
        step[name] = lambda fast=fast: fast(images, y)
        if precision:
            learns = FastStep(*copied(last=True), EPS, precision, both=True)
            step["bat_fast bf16 x 2"] = lambda fast=learns: fast(images, y)
    if x.is_cuda:
        graph = FastStep(
            *copied(last=x.shape[1] > 1), EPS, "bf16" if wide else None, both=wide, engine="graph"
        )
        attack["bat_fast graph"] = lambda: graph.attack(images, y)
        step["bat_fast graph"] = lambda: graph(images, y)
    return {"attack": attack, "step": step}


def compare(
    title: str, model: nn.Module, shape: tuple[int, ...], device: str, seconds: float
) -> dict[str, Any]:
    x, y = torch.rand(shape, device=device), torch.randint(0, model.num_classes, shape[:1], device=device)
    found: dict[str, Any] = {"model": title, "images": list(shape), "steps": STEPS}
    print(f"\n{title}, images {list(shape)}, PGD-{STEPS}, {device}")
    for part, variants in sides(model.to(device), x, y).items():
        times = interleaved(variants, seconds, least=3)
        found[part] = {name: t._asdict() for name, t in times.items()}
        for name, t in times.items():
            rate = shape[0] / t.median * 1e3
            ratios = [times[other].median / t.median for other in ("repository", "hand")]
            beside = f"{ratios[0]:6.2f} x repository {ratios[1]:6.2f} x hand"
            print(f"  {part:7} {name:18} {t} ms {rate:9.1f} images/s {beside}  n={t.n}")
    return found


def main() -> None:
    command = parser(__doc__, 10.0, "each comparison")
    command.add_argument("--resnet", action="store_true", help="also PreActResNet-18")
    command.add_argument("--batch_sizes", type=int, nargs="+", help="of PreActResNet-18")
    options = command.parse_args()
    torch.set_float32_matmul_precision("high")
    keep_freed_memory()  # for all sides alike
    print(machine())
    gpu = options.device == "cuda"
    side, classes, usual = (64, 200, 128) if gpu else (32, 10, 32)
    wanted = [("small_cnn", {"num_classes": 10, "in_channels": 1, "image_size": 8}, (128, 1, 8, 8))]
    for size in (options.batch_sizes or [usual]) if options.resnet else ():
        wanted.append(("preactresnet18", {"num_classes": classes}, (size, 3, side, side)))
    rows = []
    for name, how, shape in wanted:
        rows.append(compare(name, models.create(name, **how), shape, options.device, options.seconds))
        write(options.json, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
