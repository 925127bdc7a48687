"""PGD-10 alone, every engine against what others write and what an expert writes by hand, in one run.

    python bench/bench_attack.py                        the small networks
    python bench/bench_attack.py --shapes resnet18 ...  any of `SHAPES`
    python bench/bench_attack.py --compile              also by hand with torch.compile, in its fastest
                                                        precision alone, as that is slow to start

The styles are those of `by_hand.py`: "backward" is "repository" there. "compiled": "hand" under torch.compile
with mode="reduce-overhead", on a GPU CUDA graphs; left out, with the reason, where it fails. All attack the
same network in eval mode from the same start. Prints medians and quartiles of interleaved calls, and the loss
that each attack reaches: a difference of more than 1 % of what the attack gains is marked, and says that the
speeds do not compare.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from by_hand import STEPS, compiled, folded, hand_pgd, repository_pgd, torchattacks_pgd
from options import parser, write
from shapes import SHAPES, TINY
from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast import PGD, ops
from bat_fast.measure.timing import Timing, interleaved, machine
from bat_fast.train.allocator import keep_freed_memory

EPS = 8 / 255


def start(x: Tensor) -> Tensor:
    """Where all attacks begin."""
    return ops.random_start(x, eps=EPS, seed=0, draw=0)


def variants(
    name: str, device: str, with_compiled: bool
) -> tuple[nn.Module, Tensor, Tensor, dict[str, Callable]]:
    """The model, a batch, and the attacks by name."""
    make, shape = SHAPES[name]
    torch.manual_seed(0)
    model = make().to(device)
    x, y = torch.rand(shape, device=device), torch.randint(0, 10, shape[:1], device=device)
    with torch.no_grad():  # running statistics that fit
        for _ in range(3):
            model.train()(x)
    model.eval()
    twin, last = copy.deepcopy(model), x.to(memory_format=torch.channels_last)
    calls: dict[str, Callable] = {
        "backward style": lambda: repository_pgd(copy_of, x, y, EPS, start(x)),
        "torchattacks style": lambda: torchattacks_pgd(model, x, y, EPS, start(x)),
    }
    copy_of = copy.deepcopy(model)
    for label, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))[: 1 if name in TINY else 2]:
        by_hand = folded(model, dtype)
        calls[f"hand {label}"] = lambda m=by_hand, d=dtype: hand_pgd(m, last, y, EPS, d, start(last))
    if with_compiled:
        fast = compiled(by_hand)
        calls[f"hand {label} compiled"] = lambda d=dtype: hand_pgd(fast, last, y, EPS, d, start(last))
    twin = twin.to(memory_format=torch.channels_last)
    for engine in ("eager", "frozen", *(("graph",) if device == "cuda" else ())):
        for precision in (None, "bf16")[: 1 if name in TINY else 2]:
            attack = PGD(twin, eps=EPS, step_size=EPS / 4, steps=STEPS, precision=precision, engine=engine)
            calls[f"{engine} {precision or 'fp32'}"] = lambda a=attack: a(last, y, draw=0)
    return model, x, y, calls


@torch.no_grad()
def reached(model: nn.Module, adv: Tensor, y: Tensor) -> float:
    return float(F.cross_entropy(model(adv), y))


def compare(name: str, device: str, seconds: float, with_compiled: bool) -> dict[str, Any]:
    model, x, y, calls = variants(name, device, with_compiled)
    losses, failed = {}, {}
    for label, call in list(calls.items()):
        try:
            losses[label] = reached(model, call(), y)
        except Exception as error:
            if not label.endswith("compiled"):  # that of others is no reason to measure nothing
                raise
            failed[label] = f"{type(error).__name__}: {error}"[:300]
            del calls[label]
    clean = reached(model, x, y)
    gain = losses["torchattacks style"] - clean
    times = interleaved(calls, seconds, least=3)
    print(f"\n{name}, images {list(x.shape)}, PGD-{STEPS}, {device}; clean loss {clean:.4f}")
    print(f"  {'':20} {'ms':>9} [quartiles]{'':12} x backward  x torchattacks  loss")
    base = times["backward style"].median, times["torchattacks style"].median
    for label, t in times.items():
        ratios = f"{base[0] / t.median:8.2f} {base[1] / t.median:12.2f}"
        mark = "" if abs(losses[label] - losses["torchattacks style"]) <= 0.01 * abs(gain) else "  NOT EQUAL"
        print(f"  {label:20} {t!s:32} {ratios}     {losses[label]:10.4f}{mark}  n={t.n}")
    for label, why in failed.items():
        print(f"  {label:20} left out: {why}")
    return {
        "name": name,
        "images": list(x.shape),
        "device": device,
        "clean_loss": clean,
        "losses": losses,
        "failed": failed,
    } | {"times": {label: Timing._asdict(t) for label, t in times.items()}}


def main() -> None:
    command = parser(__doc__, 10.0, "each shape")
    command.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(TINY), metavar="SHAPE")
    command.add_argument("--compile", action="store_true", help="also torch.compile by hand")
    options = command.parse_args()
    torch.set_float32_matmul_precision("high")
    keep_freed_memory()  # for all sides alike
    print(machine())
    rows = []
    for name in options.shapes:
        rows.append(compare(name, options.device, options.seconds, options.compile))
        write(options.json, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
