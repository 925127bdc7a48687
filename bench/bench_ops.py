"""Every operator beside public PyTorch: as repositories write it, as an expert does, compiled; and its floor.

    python bench/bench_ops.py                         the table
    python bench/bench_ops.py --no-compile --only step --json ops.json
    pytest bench/bench_ops.py --benchmark-enable      the same cases under pytest-benchmark

The cases are those of `bench/operators`. The variants of a row run in turns in one process. Before anything
is timed, each is compared with the operator in float64 on the same inputs; where one differs no number is
printed for the row, and the exit status is 1. The floor of a kernel limited by memory is the fastest of
torch's copy and triad over as many bytes as it has to move; that of `discrimination_loss` is its two matrix
products. Where the operator is differentiated, an autograd.Function that computes nothing is part of the
floor. "best" is an expert's in-place code, for a loss with its gradient written by hand, without autograd.
The eager column of `holistic_weights` is a conic solver, as published, where cvxpy is installed.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from operators import Case, Inputs, Work, modules, tensors
from options import parser, write
from torch import Tensor

import bat_fast
from bat_fast import _native, ops
from bat_fast.measure.timing import Timing, gpu_ceilings, interleaved, interleaved_on_gpu, machine

COLUMNS = ("native", "eager", "best", "compiled", "floor")


def cases(device: str = "cpu") -> Iterator[Case]:
    """Every operator at the sizes of its targets."""
    for module in modules():
        yield from module.cases(Inputs(device))


def wrong(work: Work, variants: dict[str, Callable[[], Any]], tolerance: float) -> list[str]:
    """Which variants do not give the operator's results in float64, and by how much."""
    found, exact = [], [t.double() for t in tensors(work.exact())]
    for name, run in variants.items():
        if name in work.unchecked:
            continue
        work.restore()
        pairs = list(zip(tensors(run()), exact, strict=True))
        errors = [float((a.double() - b).norm() / b.norm().clamp_min(1e-30)) for a, b in pairs]
        if not all(error <= tolerance for error in errors):  # a NaN is wrong too
            found.append(f"{name} differs by {', '.join(f'{error:.1e}' for error in errors)}")
    work.restore()
    return found


class Nothing(torch.autograd.Function):
    """Forward and backward of a scalar loss that costs nothing to compute."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.new_empty(())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        del grads
        return ctx.saved_tensors[0]


def floors_of(work: Work, device: str) -> dict[str, Callable[[], Any]]:
    """What nothing undercuts: the matrix products, or copy and triad of ``work.bytes_moved`` bytes."""
    leaf = torch.rand(1, device=device, requires_grad=True)

    def with_autograd(compute: Callable[[], Any]) -> Any:
        return compute(), torch.autograd.grad(Nothing.apply(leaf), leaf)

    floors: dict[str, Callable[[], Any]] = {}
    if work.gemms:
        floors["gemms"] = work.gemms
    elif work.bytes_moved:
        a, b = (torch.rand(work.bytes_moved // 8, device=device) for _ in range(2))
        c = [torch.rand(work.bytes_moved // 12, device=device) for _ in range(3)]
        floors["copy"] = lambda: a.copy_(b)
        floors["triad"] = lambda: torch.add(c[0], c[1], alpha=2, out=c[2])
    if work.differentiated:
        return {name: partial(with_autograd, compute) for name, compute in floors.items()}
    return floors


def measure(case: Case, device: str, seconds: float, compiled: bool) -> dict[str, Any]:
    """Time one case: a row of the table."""
    torch.manual_seed(0)
    work = case.make()
    variants: dict[str, Callable[[], Any]] = {"native": work.native}
    variants |= {name: run for name, run in (("eager", work.eager), ("best", work.best)) if run is not None}
    if compiled and case.compiles and work.best is not None:
        best = work.best
        variants["compiled"] = partial(torch.compile(best.func, dynamic=False), *best.args, **best.keywords)
    row: dict[str, Any] = {"operator": case.operator, "size": case.size, "bytes": work.bytes_moved}
    row["native"] = ops.is_native(case.kernel or case.operator, device)
    if errors := wrong(work, variants, case.tolerance):
        return row | {"wrong": errors}
    floors = floors_of(work, device)
    timer = interleaved_on_gpu if device == "cuda" else interleaved
    times = timer(variants | floors, seconds)
    if floors:
        times["floor"] = min((times.pop(name) for name in floors), key=lambda t: t.median)
    row["ms"] = {name: t._asdict() for name, t in times.items()}
    if work.bytes_moved:
        row["gb_per_s"] = work.bytes_moved / times["native"].median / 1e6
    return row | judged(case, times)


def judged(case: Case, times: dict[str, Timing]) -> dict[str, Any]:
    ours = times["native"].median
    ratios = {name: t.median / ours for name, t in times.items() if name != "native"}
    ratios["us"] = 1 / (1e3 * ours)
    reached = {
        c: ratios[c] / (1 / f if c == "us" else f) if c in ratios else None for c, f in case.reach.items()
    }
    return {"ratios": ratios, "reach": dict(case.reach), "reached": reached}


def text(row: dict[str, Any]) -> str:
    head = f"{row['operator']:20}{row['size']:>14}"
    if "wrong" in row:
        return f"{head}   WRONG, not timed: {'; '.join(row['wrong'])}"
    times = [row["ms"].get(column) for column in COLUMNS]
    us = [f"{t['median'] * 1e3:10.1f}" if t else f"{'-':>10}" for t in times]
    spread = 50 * (times[0]["high"] - times[0]["low"]) / times[0]["median"]
    ratios = [f"{row['ratios'][c]:9.2f}" if c in row["ratios"] else f"{'-':>9}" for c in COLUMNS[1:]]
    reach = "; ".join(verdict(c, factor, row["reached"][c]) for c, factor in row["reach"].items())
    note = "" if row["native"] else " (the reference answers)"
    return f"{head}{us[0]} ±{spread:3.0f}%{''.join(us[1:])} |{''.join(ratios)} | {reach}{note}"


def verdict(column: str, factor: float, reached: float | None) -> str:
    goal = f"<= {factor:g} us" if column == "us" else f"{factor:.2g}x {column}"
    if reached is None:
        return f"{goal}: not measured"
    return f"{goal}: {'met' if reached >= 1 else f'missed by {100 * (1 - reached):.0f} %'}"


def main() -> int:
    command = parser(__doc__, 1.0, "each row")
    command.add_argument("--only", default="", help="cases whose name holds this")
    command.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options = command.parse_args()
    heads = [f"{column:>10}" for column in COLUMNS[1:]]
    print(f"{machine()}, {datetime.date.today()}")
    print("medians in us (half the quartile range of native), and their multiples of native")
    print(f"{'':34}{'native':>10}      {''.join(heads)} |{''.join(h[1:] for h in heads)} | to reach")
    versions = {
        "bat_fast": bat_fast.__version__,
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }
    about: dict[str, Any] = {"machine": machine(), "date": str(datetime.date.today()), "versions": versions}
    about["build"] = _native.build_info()
    if options.device == "cuda":
        about["ceilings"] = gpu_ceilings()
    rows: list[dict[str, Any]] = []
    for case in cases(options.device):
        if options.only in case.name:
            rows.append(measure(case, options.device, options.seconds, not options.no_compile))
            print(text(rows[-1]), flush=True)
            write(options.json, about | {"rows": rows})
    return int(any("wrong" in row for row in rows))


@pytest.mark.parametrize("column", ["native", "best"])
@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_operator(benchmark: Any, case: Case, column: str) -> None:
    torch.manual_seed(0)
    work = case.make()
    run = getattr(work, column) or work.eager
    assert not wrong(work, {column: run}, case.tolerance)
    benchmark(run)


if __name__ == "__main__":
    sys.exit(main())
