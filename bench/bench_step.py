"""The BAT training step against the same step written as repositories write it, in one run.

    python bench/bench_step.py            the step of the digits demo
    python bench/bench_step.py --resnet   also PreActResNet-18 at 32x32, batch 32

Both sides train the same network on the same images with PGD-10, the BAT weights and the discrimination
loss. "repository": loss.backward() in every attack step, batch norm in train mode throughout, the losses in
plain PyTorch. Prints images per second (median and quartiles of interleaved steps) and the ratio.
"""

from __future__ import annotations

import argparse
import copy

import torch
from timing import interleaved, machine
from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast import PGD, Batch, methods, models

EPS, STEPS = 0.15, 10
ALPHA, BETA, TEMPERATURE = 1.0, 0.2, 0.1


def repository_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    """One step of BAT in the style of published training scripts."""
    model.train()
    adv = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
    for _ in range(STEPS):
        adv = adv.detach().requires_grad_()
        F.cross_entropy(model(adv), y).backward()
        adv = adv + EPS / 4 * adv.grad.sign()
        adv = torch.min(torch.max(adv, x - EPS), x + EPS).clamp(0, 1)
    optimizer.zero_grad()
    logits, features = model(adv.detach(), return_features=True)
    p = F.softmax(logits.detach(), dim=1)
    q = p.scatter(1, y[:, None], 0).max(dim=1).values
    w = torch.where(p.argmax(1) != y, torch.exp(-ALPHA * q), torch.ones_like(q))
    loss = (w * F.cross_entropy(logits, y, reduction="none")).sum() / w.sum()
    h = F.normalize(features, dim=1)
    similarity = h @ h.T / TEMPERATURE
    self_pair = torch.eye(len(x), dtype=torch.bool)
    positive = (y[:, None] == y[None, :]) & ~self_pair
    log_p = similarity - similarity.masked_fill(self_pair, -torch.inf).logsumexp(1, keepdim=True)
    per_anchor = -(log_p * positive).sum(1) / positive.sum(1).clamp_min(1)
    loss = loss + BETA * per_anchor[positive.any(1)].mean()
    loss.backward()
    optimizer.step()


class FastStep:
    """The step of `bat_fast.train`, without its bookkeeping."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer = model.train(), optimizer
        self.attack = PGD(model, eps=EPS, step_size=EPS / 4, steps=STEPS)
        self.method = methods.create("bat", alpha=ALPHA, beta=BETA, temperature=TEMPERATURE)

    def __call__(self, x: Tensor, y: Tensor) -> None:
        batch = Batch(x, y, torch.arange(len(x)))
        x_adv = self.attack(x, y, objective=self.method.attack_loss(self.model, batch, 0))
        loss = self.method(self.model, batch, x_adv, 0).total
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


def compare(title: str, model: nn.Module, shape: tuple[int, ...], seconds: float) -> None:
    x, y = torch.rand(shape), torch.randint(0, model.num_classes, shape[:1])
    sides = [copy.deepcopy(model) for _ in range(2)]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4) for m in sides]
    fast = FastStep(sides[1], optimizers[1])
    times = interleaved(
        {
            "repository": lambda: repository_step(sides[0], optimizers[0], x, y),
            "bat_fast": lambda: fast(x, y),
        },
        seconds,
    )
    print(f"\n{title}, images {list(shape)}, PGD-{STEPS}")
    for name, t in times.items():
        print(f"  {name:11} {t} ms   {shape[0] / t.median * 1e3:9.1f} images/s   n={t.n}")
    print(f"  ratio       {times['repository'].median / times['bat_fast'].median:9.2f} x repository")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resnet", action="store_true", help="also PreActResNet-18 at 32x32")
    parser.add_argument("--seconds", type=float, default=10.0, help="time for each comparison")
    options = parser.parse_args()
    print(machine())
    small = models.create("small_cnn", num_classes=10, in_channels=1, image_size=8)
    compare("digits demo: small_cnn", small, (128, 1, 8, 8), options.seconds)
    if options.resnet:
        resnet = models.create("preactresnet18", num_classes=10)
        compare("preactresnet18", resnet, (32, 3, 32, 32), options.seconds)


if __name__ == "__main__":
    main()
