"""The whole of AutoAttack on one thread against pyautoattack, on all test images, in one run.

    python bench/bench_eval.py                       trains a model on the digits for it (PGD-AT, 20 epochs)
    python bench/bench_eval.py --run RUN --eps 8/255   a run of one's own

All attack the same model with batches of 250 images. "official" is the package as it is; "replay" repeats its
verdicts, which is checked; "exact" is the default, with random numbers of its own, and its accuracy is
printed beside; "quick" is an upper bound and no AutoAttack, so its time does not compare. Prints median and
range of interleaved runs; on a CPU of the seconds that the thread computed, whoever else is on the machine.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import pyautoattack
import torch
from options import parser, write
from torch import Tensor, nn

from bat_fast.attacks import AutoAttack
from bat_fast.config import AttackConfig, TrainConfig
from bat_fast.evaluate import load_run
from bat_fast.evaluate.groups import joined
from bat_fast.evaluate.saved import split_loader
from bat_fast.measure.timing import machine
from bat_fast.ratio import Ratio
from bat_fast.train import Trainer

BATCH = 250
OFFICIAL_NORMS = {"linf": "Linf", "l2": "L2"}


def trained(folder: Path) -> Path:
    """A run on the digits."""
    attack = AttackConfig(eps=Ratio("1/10"), steps=5)
    config = TrainConfig(epochs=20, device="cpu", method={"name": "pgd_at"}, attack=attack)
    Trainer(config, folder, progress=False).fit()
    return folder


def official(model: nn.Module, x: Tensor, y: Tensor, norm: str, eps: float) -> list[bool]:
    attack = pyautoattack.AutoAttack(model, norm=OFFICIAL_NORMS[norm], eps=eps, seed=0, device=x.device)
    _, predicted = attack.run_standard_evaluation(x, y, batch_size=BATCH)
    return (predicted == y).tolist()


def compare(model: nn.Module, x: Tensor, y: Tensor, norm: str, eps: float, turns: int) -> dict[str, Any]:
    calls = {"official": lambda: official(model, x, y, norm, eps)}
    for mode in ("replay", "exact", "quick"):
        attack = AutoAttack(model, eps, norm=norm, mode=mode, batch_size=BATCH)
        calls[mode] = lambda attack=attack: attack.judge(x, y).robust
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    robust: dict[str, list[bool]] = {}
    clock = time.perf_counter if x.is_cuda else time.process_time
    for _ in range(turns):
        for name, call in calls.items():
            begin = clock()
            robust[name] = call()
            if x.is_cuda:
                torch.cuda.synchronize()
            seconds[name].append(clock() - begin)
    assert robust["replay"] == robust["official"], "replay: other verdicts than those of pyautoattack"
    base = statistics.median(seconds["official"])
    print(f"\n{norm} eps {eps:.4g}, {len(x)} images {list(x.shape[1:])}, {x.device}, median of {turns} runs")
    print(f"  {'':10} {'seconds':>8} {'[range]':18} {'x official':>10}  robust")
    for name, times in seconds.items():
        middle = statistics.median(times)
        spread = f"[{min(times):.1f}, {max(times):.1f}]"
        print(
            f"  {name:10} {middle:8.1f} {spread:18} {base / middle:10.2f}  {sum(robust[name]) / len(x):.2%}"
        )
    accuracies = {name: sum(flags) / len(x) for name, flags in robust.items()}
    return {"norm": norm, "eps": eps, "images": len(x), "seconds": seconds, "robust": accuracies}


def main() -> None:
    command = parser(__doc__, 0.0, "nothing here: --turns says how often")
    command.add_argument("--run", type=Path, help="a run folder (default: trains one on the digits)")
    command.add_argument("--eps", type=Ratio, help="radius in linf (default: that of the training)")
    command.add_argument("--eps_l2", type=Ratio, help="radius in l2 (default: l2 is left out)")
    command.add_argument("--turns", type=int, default=3, help="runs of each (default: 3)")
    options = command.parse_args()
    torch.set_num_threads(1)
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        model, saved = load_run(options.run or trained(Path(folder) / "run"), options.device)
    x, y, _ = next(joined(split_loader(saved, "test", BATCH, options.device), None))
    rows = []
    for norm, eps in (("linf", options.eps or saved["eps"]), ("l2", options.eps_l2)):
        if eps is not None:
            rows.append(compare(model, x, y, norm, float(eps), options.turns))
            write(options.json, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
