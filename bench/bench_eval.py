"""The whole of AutoAttack on one thread against pyautoattack, on all test images, in one run.

    python bench/bench_eval.py                       trains a model on the digits for it (PGD-AT, 20 epochs)
    python bench/bench_eval.py --run RUN --eps 8/255   a run of one's own
    python bench/bench_eval.py --undefended            one trained on clean images, at eps 1/5: all break
    python bench/bench_eval.py --passes 100 --images 16 --attacks apgd-ce apgd-t
                                                       PreActResNet-18 at 32x32, bf16 search, an attack
                                                       at a time, cut to such steps, images, queries, targets

All attack the same model with batches of 250 images. "official" is the package as it is; "replay" repeats its
verdicts, which is checked; "exact" is the default, with random numbers of its own, and its accuracy is
printed beside; "quick" is an upper bound and no AutoAttack, so its time does not compare. Prints median and
range of interleaved runs; on a CPU of the seconds that the thread computed, whoever else is on the machine.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyautoattack
import torch
from options import parser, write
from torch import Tensor, nn

from bat_fast import models
from bat_fast.attacks import APGD, FAB, AutoAttack, Square
from bat_fast.attacks.search import Search
from bat_fast.config import AttackConfig, TrainConfig
from bat_fast.evaluate import load_run
from bat_fast.evaluate.groups import joined
from bat_fast.evaluate.saved import split_loader
from bat_fast.measure.timing import machine
from bat_fast.ratio import Ratio
from bat_fast.train import Trainer

BATCH = 250
PARTS = ("apgd-ce", "apgd-t", "fab-t", "square")
OFFICIAL_NORMS = {"linf": "Linf", "l2": "L2"}


def trained(folder: Path) -> Path:
    """A run on the digits."""
    attack = AttackConfig(eps=Ratio("1/10"), steps=5)
    config = TrainConfig(epochs=20, device="cpu", method={"name": "pgd_at"}, attack=attack)
    Trainer(config, folder, progress=False).fit()
    return folder


def standard(folder: Path) -> Path:
    """A run on the digits without an attack."""
    config = TrainConfig(epochs=10, device="cpu", method={"name": "standard"})
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


@dataclass(frozen=True)
class Cut:
    """How much of each attack is run, by both: ``steps`` of the gradient attacks and ``queries`` of Square on
    ``images``, towards ``targets`` classes; AutoAttack has 100, 5000 and 9."""

    images: int
    steps: int
    queries: int
    targets: int


def passes(cut: Cut, attacks: list[str], turns: int) -> dict[str, Any]:
    """The attacks one by one, on images of a network that none of them breaks (a tiny radius)."""
    torch.manual_seed(0)
    model, eps = models.create("preactresnet18", num_classes=10).eval(), 1e-5
    x = torch.rand(cut.images, 3, 32, 32)
    with torch.no_grad():
        y = model(x).argmax(1)

    def theirs(name: str) -> bool:
        attack = pyautoattack.AutoAttack(model, norm="Linf", eps=eps, seed=0, device="cpu")
        attack.attacks_to_run = [name]
        for part in (attack.apgd, attack.apgd_targeted):
            part.n_iter = cut.steps
            part.n_iter_2, part.n_iter_min, part.size_decr = (
                max(int(share * cut.steps), 1) for share in (0.22, 0.06, 0.03)
            )
        attack.fab.n_iter, attack.square.n_queries = cut.steps, cut.queries
        attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = cut.targets
        _, predicted = attack.run_standard_evaluation(x, y, batch_size=len(x))
        return bool((predicted == y).all())

    some: dict[str, Any] = {"eps": eps, "precision": "bf16"}
    ours: dict[str, Search] = {
        "apgd-ce": APGD(model, steps=cut.steps, **some),
        "apgd-t": APGD(model, loss="dlr", targets=cut.targets, steps=cut.steps, **some),
        "fab-t": FAB(model, targets=cut.targets, steps=cut.steps, **some),
        "square": Square(model, queries=cut.queries, **some),
    }
    print(f"\nPreActResNet-18, {list(x.shape)}, bf16 search, median of {turns} runs; {cut}")
    print(f"  {'':10} {'official':>8} {'ours':>8} {'x official':>10} [range]", flush=True)
    APGD(model, steps=1, **some)(x, y)  # packs the weights
    rows = {}
    for name in attacks:
        both = []
        for _ in range(turns):
            times = [time.process_time()]
            for call in (lambda name=name: theirs(name), lambda name=name: torch.equal(ours[name](x, y), x)):
                assert call(), f"{name} has broken an image, so the work differs"
                times.append(time.process_time())
            both.append((times[1] - times[0], times[2] - times[1]))
        rows[name] = both
        _print_row(name, both)
    if len(rows) > 1:
        sums = [tuple(map(sum, zip(*turn, strict=True))) for turn in zip(*rows.values(), strict=True)]
        _print_row("together", sums)
    return {"network": "preactresnet18", **asdict(cut), "seconds": rows}


def _print_row(name: str, both: list[tuple[float, float]]) -> None:
    """Seconds of the official code and of this one, turn by turn."""
    base, mine = (statistics.median(column) for column in zip(*both, strict=True))
    quotients = [a / b for a, b in both]
    spread = f"[{min(quotients):.2f}, {max(quotients):.2f}]"
    print(f"  {name:10} {base:8.2f} {mine:8.2f} {base / mine:10.2f} {spread}", flush=True)


def main() -> None:
    command = parser(__doc__, 0.0, "nothing here: --turns says how often")
    command.add_argument("--run", type=Path, help="a run folder (default: trains one on the digits)")
    command.add_argument(
        "--eps", type=Ratio, help="radius in linf (default: of the training; 1/5 if --undefended)"
    )
    command.add_argument("--eps_l2", type=Ratio, help="radius in l2 (default: l2 is left out)")
    command.add_argument("--turns", type=int, default=3, help="runs of each (default: 3)")
    command.add_argument("--undefended", action="store_true", help="train on clean images instead")
    command.add_argument("--passes", type=int, help="steps of each attack, on PreActResNet-18 alone")
    command.add_argument("--images", type=int, default=8, help="with --passes (default: 8)")
    command.add_argument("--targets", type=int, default=2, help="classes, with --passes (default: 2)")
    command.add_argument("--queries", type=int, help="of Square, with --passes (default: 5 a step)")
    command.add_argument("--attacks", nargs="+", choices=PARTS, default=PARTS, help="(default: all)")
    options = command.parse_args()
    torch.set_num_threads(1)
    print(machine())
    if options.passes:
        queries = options.queries or 5 * options.passes
        cut = Cut(options.images, options.passes, queries, options.targets)
        rows = [passes(cut, options.attacks, options.turns)]
        write(options.json, {"machine": machine(), "rows": rows})
        return
    with tempfile.TemporaryDirectory() as folder:
        make = standard if options.undefended else trained
        model, saved = load_run(options.run or make(Path(folder) / "run"), options.device)
    x, y, _ = next(joined(split_loader(saved, "test", BATCH, options.device), None))
    rows = []
    for norm, eps in (
        ("linf", options.eps or (Ratio("1/5") if options.undefended else saved["eps"])),
        ("l2", options.eps_l2),
    ):
        if eps is not None:
            rows.append(compare(model, x, y, norm, float(eps), options.turns))
            write(options.json, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
