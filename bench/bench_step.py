"""PGD-10 and the BAT training step against the same as repositories write them, in one run.

    python bench/bench_step.py            the step of the digits demo
    python bench/bench_step.py --resnet   also PreActResNet-18: 32x32, batch 32; on CUDA 64x64, batch 128
    python bench/bench_step.py --resnet --batch_sizes 128 512

All sides train the same network on the same images with PGD-10, the BAT weights and the discrimination
loss. "repository": loss.backward() in every attack step, batch norm in train mode throughout, the losses in
plain PyTorch. "torchattacks": input gradients alone, eval mode, the update in plain PyTorch, as that library
has it. "hand": what an expert gets without other tools: a copy of the network with batch norm folded for
every attack, input gradients alone, channels_last, bf16 for attack and weights where it pays, the same loss.
Prints medians and quartiles of interleaved calls, and the ratios; TF32 is on for all sides on CUDA.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_attack import STEPS, climbed_by_hand, folded
from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast import PGD, Batch, methods, models
from bat_fast.measure.timing import interleaved, machine
from bat_fast.train.allocator import keep_freed_memory
from bat_fast.train.learner import Autocast

EPS = 0.15
ALPHA, BETA, TEMPERATURE = 1.0, 0.2, 0.1


def repository_attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    adv = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
    for _ in range(STEPS):
        adv = adv.detach().requires_grad_()
        F.cross_entropy(model(adv), y).backward()
        adv = adv + EPS / 4 * adv.grad.sign()
        adv = torch.min(torch.max(adv, x - EPS), x + EPS).clamp(0, 1)
    return adv.detach()


def torchattacks_attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    model.eval()
    adv = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1).detach()
    for _ in range(STEPS):
        adv.requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(model(adv), y), adv)
        adv = adv.detach() + EPS / 4 * grad.sign()
        adv = (x + torch.clamp(adv - x, min=-EPS, max=EPS)).clamp(0, 1).detach()
    model.train()
    return adv


def repository_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    """One step of BAT in the style of published training scripts."""
    model.train()
    adv = repository_attack(model, x, y)
    optimizer.zero_grad()
    bat_by_hand(*model(adv, return_features=True), y).backward()
    optimizer.step()


def hand_attack(model: nn.Module, x: Tensor, y: Tensor, dtype: torch.dtype) -> Tensor:
    begin = torch.empty_like(x).uniform_(-EPS, EPS).add_(x).clamp_(0, 1)
    return climbed_by_hand(folded(model, dtype), begin, x, y, dtype, EPS)


def hand_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, dtype: torch.dtype
) -> None:
    adv = hand_attack(model, x, y, dtype)
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
        logits, features = model(adv, return_features=True)
    bat_by_hand(logits.float(), features.float(), y).backward()
    optimizer.step()


def bat_by_hand(logits: Tensor, features: Tensor, y: Tensor) -> Tensor:
    """The loss of BAT in plain PyTorch."""
    p = F.softmax(logits.detach(), dim=1)
    q = p.scatter(1, y[:, None], 0).max(dim=1).values
    w = torch.where(p.argmax(1) != y, torch.exp(-ALPHA * q), torch.ones_like(q))
    loss = (w * F.cross_entropy(logits, y, reduction="none")).sum() / w.sum()
    h = F.normalize(features, dim=1)
    similarity = h @ h.T / TEMPERATURE
    self_pair = torch.eye(len(y), dtype=torch.bool, device=y.device)
    positive = (y[:, None] == y[None, :]) & ~self_pair
    log_p = similarity - similarity.masked_fill(self_pair, -torch.inf).logsumexp(1, keepdim=True)
    per_anchor = -(log_p * positive).sum(1) / positive.sum(1).clamp_min(1)
    return loss + BETA * per_anchor[positive.any(1)].mean()


class FastStep:
    """The step of `bat_fast.train`, without its bookkeeping.

    ``precision`` is that of the attack; with ``both`` the weights learn in bf16 too (``optim.precision``).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        precision: str | None,
        both: bool = False,
        engine: str = "auto",
    ) -> None:
        self.model, self.optimizer = model.train(), optimizer
        self.learner = Autocast(model) if both else model
        self.attack = PGD(model, eps=EPS, step_size=EPS / 4, steps=STEPS, precision=precision, engine=engine)
        self.method = methods.create("bat", alpha=ALPHA, beta=BETA, temperature=TEMPERATURE)

    def __call__(self, x: Tensor, y: Tensor) -> None:
        batch = Batch(x, y, torch.arange(len(x), device=x.device))
        x_adv = self.attack(x, y, objective=self.method.attack_loss(self.model, batch, 0))
        loss = self.method(self.learner, batch, x_adv, 0).total
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


def sides(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, dict[str, Callable[[], Any]]]:
    """The attack alone and the whole step, in every style, each on a copy of its own."""

    def copied(last: bool = False) -> tuple[nn.Module, torch.optim.Optimizer]:
        twin = copy.deepcopy(model).train()
        twin = twin.to(memory_format=torch.channels_last) if last else twin
        return twin, torch.optim.SGD(twin.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    repository, peer, images = copied(), copied()[0], x.to(memory_format=torch.channels_last)
    attack: dict[str, Callable[[], Any]] = {
        "repository": lambda: repository_attack(repository[0], x, y),
        "torchattacks": lambda: torchattacks_attack(peer, x, y),
    }
    step: dict[str, Callable[[], Any]] = {"repository": lambda: repository_step(*repository, x, y)}
    # 16-bit convolutions repay themselves from a certain size on.
    wide = x[0].numel() >= 3 * 32 * 32
    expert, kind = copied(last=True), torch.bfloat16 if wide else torch.float32
    attack["hand"] = lambda: hand_attack(expert[0], images, y, kind)
    step["hand"] = lambda: hand_step(*expert, images, y, kind)
    for precision in (None, "bf16") if wide else (None,):
        fast = FastStep(*copied(last=x.shape[1] > 1), precision)
        name = f"bat_fast {precision or 'fp32'}"
        attack[name] = lambda fast=fast: fast.attack(images, y)
        step[name] = lambda fast=fast: fast(images, y)
        if precision:
            learns = FastStep(*copied(last=True), precision, both=True)
            step["bat_fast bf16 x 2"] = lambda fast=learns: fast(images, y)
    if x.is_cuda:
        graph = FastStep(*copied(last=x.shape[1] > 1), "bf16" if wide else None, both=wide, engine="graph")
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resnet", action="store_true", help="also PreActResNet-18")
    parser.add_argument("--batch_sizes", type=int, nargs="+", help="of PreActResNet-18")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--seconds", type=float, default=10.0, help="time for each comparison")
    parser.add_argument("--json", type=Path, help="write everything here")
    options = parser.parse_args()
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
        if options.json:  # what is known so far
            options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
