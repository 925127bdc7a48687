"""Where the time of an attack step and of a training step goes, kernel by kernel.

    python bench/profile_step.py --device cuda             PreActResNet-18, 64x64, batch 128, bf16
    python bench/profile_step.py --shape small_cnn --precision fp32

Under the profiler of torch, after warming up: the engine ``frozen``, so that every kernel has a launch of its
own. Of one step each: the kernels (on a CPU the operators) that take most of it, how many there are, and how
long the device is busy and idle. Copies that only change the layout of images are counted: there should be
none between convolutions. The first lines say what was captured: a model that runs as it is, in autograd,
would be no measure of this engine.

At last, on a GPU, what the host launches for an attack of the engine ``graph`` after the weights have moved:
one graph, the random start and the copies of the batch. It ends with an error if that is not so.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from by_hand import STEPS
from fast_step import FastStep
from options import parser, write
from shapes import SHAPES
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from bat_fast import PGD
from bat_fast.attacks import untouched
from bat_fast.attacks.engine.freeze import freezer_of
from bat_fast.measure.launch_gaps import idle_share, kernels, launches
from bat_fast.measure.timing import machine

_CALLS = 3
EPS = 8 / 255
MOST_BESIDE = 12  # launches beside the graph: random start, images and labels in, images out
_LAYOUT = ("nchwToNhwc", "nhwcToNchw", "nchw2nhwc", "nhwc2nchw")  # of cuDNN


def profiled(run: Callable[[], object], device: str, steps: int) -> dict[str, Any]:
    """What a call of ``run`` does, divided by its ``steps``.

    Returns:
        ``rows``: name, calls and microseconds of a step, the largest first. ``launches``: kernels of a step.
        ``busy_us``, ``wall_us``: of a step. ``idle``: share of the time without a kernel; None on a CPU.
        ``layout_copies``: kernels of a step that only change the layout of images.
    """
    for _ in range(3):
        run()
    gpu = device == "cuda"
    if gpu:
        torch.cuda.synchronize()
    activities = [ProfilerActivity.CUDA] if gpu else [ProfilerActivity.CPU]
    with profile(activities=activities) as profiler:
        for _ in range(_CALLS):
            run()
        if gpu:
            torch.cuda.synchronize()
    events = profiler.events() or ()
    count, micros = Counter[str](), Counter[str]()
    for event in events:
        if gpu and (event.device_type.name != "CUDA" or event.is_user_annotation):
            continue
        count[event.name] += 1
        micros[event.name] += event.time_range.elapsed_us() if gpu else event.self_cpu_time_total
    per = steps * _CALLS
    rows = [
        {"name": name, "calls": count[name] / per, "us": us / per} for name, us in micros.most_common() if us
    ]
    spans = kernels(events)
    busy = sum(row["us"] for row in rows)
    wall = (max(end for _, end in spans) - min(start for start, _ in spans)) / per if spans else busy
    layout = sum(row["calls"] for row in rows if any(word in row["name"] for word in _LAYOUT))
    return {
        "launches": sum(count.values()) / per, "busy_us": busy, "wall_us": wall, "idle": idle_share(spans),
        "layout_copies": layout, "rows": rows,
    }  # fmt: skip


def main() -> None:
    command = parser(__doc__, 0, "nothing: the number of calls is fixed")
    command.add_argument("--shape", choices=SHAPES, default="resnet18_128", metavar="SHAPE")
    command.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    command.add_argument("--rows", type=int, default=22, help="kernels to print")
    options = command.parse_args()
    make, shape = SHAPES[options.shape]
    precision = None if options.precision == "fp32" else options.precision
    torch.manual_seed(0)
    model = make().to(options.device, memory_format=torch.channels_last).train()
    x = torch.rand(shape, device=options.device).to(memory_format=torch.channels_last)
    y = torch.randint(0, 10, shape[:1], device=options.device)
    for _ in range(3):
        model(x)
    attack = PGD(model, eps=EPS, step_size=EPS / 4, steps=STEPS, precision=precision, engine="frozen")
    twin = copy.deepcopy(model)
    learner = FastStep(
        twin, torch.optim.SGD(twin.parameters(), lr=1e-4, momentum=0.9), EPS, precision,
        both=precision is not None, engine="frozen",
    )  # fmt: skip
    attack(x, y, draw=0)
    with torch.no_grad(), untouched(model, "eval"):
        program = freezer_of(model).program(model, x, torch.bfloat16 if precision else None)
    print(f"{machine()}; {options.shape} {list(shape)} {options.precision}")
    print(f"{type(program).__name__}: {str(program)[:2000]}")
    found: dict[str, Any] = {"machine": machine(), "shape": options.shape, "precision": options.precision}
    found["program"] = f"{type(program).__name__}: {program}"
    parts = {
        "a step of the attack": (lambda: attack(x, y, draw=0), STEPS),
        "a step of training": (lambda: learner(x, y), 1),
    }
    for name, (run, steps) in parts.items():
        found[name] = row = profiled(run, options.device, steps)
        idle = "" if row["idle"] is None else f", idle {row['idle']:.1%}"
        print(
            f"\n{name}: {row['launches']:.0f} launches, {row['layout_copies']:g} layout copies, "
            f"busy {row['busy_us']:.0f} us, {row['wall_us']:.0f} us in all{idle}"
        )
        for entry in row["rows"][: options.rows]:
            share = entry["us"] / row["busy_us"]
            print(f"  {entry['us']:9.1f} us {share:6.1%} {entry['calls']:7.1f} x  {entry['name'][:110]}")
        write(options.json, found)
    if options.device == "cuda":
        graph = PGD(twin, eps=EPS, step_size=EPS / 4, steps=STEPS, precision=precision, engine="graph")
        found["launches of a graph"] = counts = after_an_update(graph, lambda: learner(x, y), x, y)
        print(f"\nan attack as a graph, after an update: {counts}")
        write(options.json, found)
        if counts["graph"] != 1 or counts["other"] > MOST_BESIDE:
            raise SystemExit(f"an attack is not one graph and at most {MOST_BESIDE} launches: {counts}")


def after_an_update(attack: PGD, update: Callable[[], object], x: Tensor, y: Tensor) -> dict[str, int]:
    """What the host launches for an ``attack`` on ``x`` [N, C, H, W] with ``y`` [N] after an ``update``."""
    for _ in range(2):  # the first call captures
        attack(x, y, draw=0)
        update()
    found = launches(lambda: attack(x, y, draw=0), "cuda") or {}
    graphs = sum(count for name, count in found.items() if "GraphLaunch" in name)
    return {"graph": graphs, "other": sum(found.values()) - graphs}


if __name__ == "__main__":
    main()
