"""Calls of the bare operators with whatever can be put into their schemas: none may crash, or write outside.

python tests/faults/fuzz_operators.py --seed 1 --count 10000
python tests/faults/fuzz_operators.py --seed 1 --first 4711 --count 1 --verbose   # one call of them again

A call begins valid, and up to three of its arguments are replaced by others of the type that the schema
names. Each call is written to ``--log`` before it is made: that line is the one that ended the process.
Tensors lie between guards that are looked at afterwards; with ``--exact`` not, for AddressSanitizer.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bat_fast import _native, ops  # noqa: F401  (ops defines the operators)
from bat_fast.ops.network import Map, PlanLayer, Window, network_plan

GUARD = 64  # elements before and behind a tensor
SECONDS = 60  # a call that takes longer hangs
TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8,
         torch.bool, torch.complex64, torch.int16)  # fmt: skip
INTEGERS = (-1, 0, 1, 2, 7, 2**20, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, -(2**31), -(2**63))
FLOATS = (float("nan"), float("inf"), -float("inf"), -1.0, 0.0, 1.0, 1e-45, 1e-38, 1e38, 1e300, -1e300, 0.5)
WORDS = ("", "ce", "kl", "dlr", "margin", "linf", "l2", "gaussian", "hd", "hr", "weights", "batch", "all",
         "negatives", "x" * 999, "ce\0", "\u2603")  # fmt: skip


class Memory:
    """Makes the tensors of a call, and looks at what lies around them."""

    def __init__(self, draw: random.Random, exact: bool) -> None:
        self.draw, self._exact = draw, exact
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def own(self, values: Tensor) -> Tensor:
        """``values`` in memory of their own, of exactly that size or between guards."""
        if self._exact:
            return values.clone(memory_format=torch.contiguous_format)
        count = values.numel()
        whole = torch.zeros(count + 2 * GUARD, dtype=values.dtype)
        whole.view(torch.uint8).fill_(0xA5) if values.dtype != torch.bool else whole.fill_(True)
        inner = whole[GUARD : GUARD + count].view(values.shape)
        inner.copy_(values)
        self._kept.append((whole, whole[:GUARD].clone(), whole[GUARD + count :].clone()))
        return inner

    def broken(self) -> bool:
        """Whether a guard has changed."""
        for whole, before, behind in self._kept:
            for guard, was in ((whole[:GUARD], before), (whole[len(whole) - GUARD :], behind)):
                if not torch.equal(guard.view(torch.uint8), was.view(torch.uint8)):
                    return True
        return False

    def floats(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.own(torch.rand(shape).to(dtype))

    def ids(self, count: int, end: int) -> Tensor:
        return self.own(torch.randint(0, max(end, 1), (count,)))


def sizes(draw: random.Random) -> tuple[int, int]:
    """Rows and classes."""
    return draw.choice((0, 1, 2, 5, 17, 33)), draw.choice((1, 2, 3, 4, 10, 65, 600))


def wide(draw: random.Random) -> torch.dtype:
    return draw.choice((torch.float32, torch.float64))


def any_float(draw: random.Random) -> torch.dtype:
    return draw.choice((torch.float32, torch.float64, torch.float16, torch.bfloat16))


def compute(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def images(m: Memory) -> tuple[int, ...]:
    return tuple(m.draw.choice(some) for some in ((0, 1, 3, 17), (1, 3, 4), (1, 5, 8), (1, 4, 9)))


def activation(m: Memory, *behind: Any) -> list[Any]:
    x = m.floats(*images(m), dtype=any_float(m.draw))
    return [x, *(m.own(torch.tensor(1.5, dtype=compute(x.dtype))) if b is Tensor else b for b in behind)]


def affine(m: Memory, first: str) -> list[Any]:
    shape, dtype = images(m), any_float(m.draw)
    x, like = (m.floats(*shape, dtype=dtype) for _ in range(2))
    scale, shift = (m.floats(shape[1], dtype=compute(dtype)) for _ in range(2))
    bits = m.own(torch.randint(0, 256, ((x.numel() + 7) // 8,), dtype=torch.uint8))
    if first == "affine":
        return [x, scale, shift, m.draw.random() < 0.5]
    if first == "affine_grad_":
        return [x, like, scale, m.floats(*shape, dtype=dtype)]
    return [x, like, scale, shift] if first == "affine_relu_" else [x, bits, scale, like]


def climbed(m: Memory, rows: int, classes: int, dtype: torch.dtype) -> list[Any]:
    """What an attack takes behind its logits."""
    reference, soft = (m.floats(rows, classes, dtype=dtype) for _ in range(2))
    loss = m.draw.choice(("ce", "margin", "dlr", "kl"))
    return [loss, reference, soft, 0.3, m.draw.random() < 0.5, m.ids(rows, classes)]


def attack_grad(m: Memory) -> list[Any]:
    rows, classes = sizes(m.draw)
    dtype = wide(m.draw)
    return [m.floats(rows, classes, dtype=dtype), m.ids(rows, classes), *climbed(m, rows, classes, dtype)]


def crop_flip(m: Memory) -> list[Any]:
    count, channels, height, width = images(m)
    data = m.own(torch.randint(0, 256, (6, height, width, channels), dtype=torch.uint8))
    out = m.floats(count, channels, height, width, dtype=m.draw.choice((torch.float32, torch.bfloat16)))
    reflect = m.draw.random() < 0.5
    pad = m.draw.choice((0, min(height, width) - 1)) if reflect else m.draw.choice((0, 2, 1 << 20))
    return [out, data, m.ids(count, 6), m.ids(count, 10**6), pad, reflect, 5, 3, m.draw.random() < 0.5]


def network(m: Memory) -> tuple[int, list[Any]]:
    """The images of a small network, and all that follows: its layers, weights and classes."""
    rows, channels = m.draw.choice((0, 1, 16, 19)), m.draw.choice((1, 3))
    dtype, kind = wide(m.draw), m.draw.choice(("relu", "silu", None))
    pixels, window, half = Map(8, 8, channels), Map(8, 8, 4), Map(4, 4, 4)
    at = [0, pixels.height * pixels.width * channels]
    for part in (window, window, half):
        at.append(at[-1] + part.height * part.width * part.channels)
    size, classes = 36 * channels, 5
    layers = [
        PlanLayer("window", 0, -1, at[1], at[2], kind, pixels, window, Window(3, 3, 1, 1, 1, 1), 0, size),
        PlanLayer("max_pool", at[2], -1, -1, at[3], None, window, half, Window(2, 2, 2, 2)),
        PlanLayer(
            "window", at[3], -1, -1, at[4], None, Map(1, 1, 64), Map(1, 1, classes), Window(), size + 4, -1
        ),
    ]
    plan, weights = m.own(network_plan(layers)), m.floats(size + 4 + 64 * classes, dtype=dtype)
    return rows, [m.floats(rows, channels, 8, 8, dtype=dtype), plan, weights, classes]


def network_gradient(m: Memory) -> list[Any]:
    rows, (x, plan, weights, classes) = network(m)
    return [x, m.floats(rows, classes, dtype=x.dtype), plan, weights, classes]


def network_attack_(m: Memory) -> list[Any]:
    rows, (x, *rest) = network(m)
    classes = rest[-1]
    behind = [m.draw.choice(("linf", "l2")), 2, 0.1, 0.2, 0.0, 1.0]
    return [x, m.own(x), m.ids(rows, classes), *rest, *climbed(m, rows, classes, x.dtype), *behind]


def searched(m: Memory, name: str) -> list[Any]:
    """What the searches for misclassified images take."""
    rows, (x, *rest) = network(m)
    classes, behind = rest[-1], [0.1, 0.0, 1.0]
    moved = [x, m.own(x), m.ids(rows, classes)]
    if name == "network_squares_":
        bumps = m.draw.choice((None, m.floats(2, 3, 3, dtype=x.dtype)))
        count = (2 if bumps is None else 5) + x.shape[1]
        return [*moved, m.floats(rows, m.draw.choice((0, 3, 9)), count), bumps, *rest, 3, *behind]
    moved, norm = [*moved, m.draw.choice((m.ids(rows, classes), None))], m.draw.choice(("linf", "l2"))
    if name == "network_walk_":
        return [*moved, *rest, norm, 3, *behind]
    loss, checks = m.draw.choice(("ce", "margin", "dlr")), m.own(torch.tensor([1, 3, 4]))
    return [*moved, *rest, loss, norm, checks, 4, *behind]


def step(m: Memory) -> list[Any]:
    shape, dtype = images(m), wide(m.draw)
    grad = m.floats(*shape, dtype=m.draw.choice((dtype, torch.float16, torch.bfloat16)))
    return [m.floats(*shape, dtype=dtype), grad, m.floats(*shape, dtype=dtype), 0.1, 0.2, 0.0, 1.0]


def random_start(m: Memory) -> list[Any]:
    shape = images(m)
    norm = m.draw.choice(("linf", "l2", "gaussian"))
    return [m.floats(*shape, dtype=wide(m.draw)), m.ids(shape[0], 99), 0.1, norm, 3, 4, 0.0, 1.0]


def rows(m: Memory, name: str) -> list[Any]:
    count, classes = sizes(m.draw)
    dtype = wide(m.draw)
    logits, other = (m.floats(count, classes, dtype=dtype) for _ in range(2))
    target, scalar = m.ids(count, classes), lambda: m.floats(dtype=dtype)
    if name == "bat_loss":
        return [logits, target, 2.0, m.draw.choice(("weights", "batch"))]
    if name == "bat_loss_backward":
        return [
            scalar(),
            logits,
            target,
            m.floats(count, dtype=dtype),
            m.floats(count, 2, dtype=dtype),
            scalar(),
        ]
    if name == "pair_loss":
        return [logits, other, m.draw.choice((target, None)), 6.0]
    if name == "pair_loss_backward":
        kept, wanted = m.floats(count, 12, dtype=dtype), (m.draw.random() < 0.5 for _ in range(2))
        return [scalar(), logits, other, m.draw.choice((target, None)), kept, *wanted]
    if name == "soft_target_loss":
        return [logits, other]
    if name == "discrimination_loss":
        return [logits, target, 0.1, m.floats(count, dtype=dtype), m.draw.choice(("all", "negatives"))]
    if name == "discrimination_loss_backward":
        return [scalar(), logits, m.floats(count, dtype=dtype), other, 0.1]
    if name == "holistic_loss":
        return [m.floats(max(count, 1), dtype=dtype), 0.1, 0.2, m.draw.choice(("hd", "hr"))]
    return [m.floats(9, classes, dtype=dtype), m.ids(count, 9), logits, 0.9]  # ensemble_targets_


VALID: dict[str, Callable[[Memory], list[Any]]] = {
    "smooth_relu": lambda m: activation(m, Tensor),
    "smooth_relu_backward": lambda m: [m.own((a := activation(m, Tensor, m.draw.random() < 0.5))[0]), *a],
    "softplus": lambda m: activation(m, 10.0),
    "softplus_backward": lambda m: [m.own((a := activation(m, 10.0))[0]), *a],
    **{f"affine{n}": lambda m, n=n: affine(m, f"affine{n}") for n in ("", "_grad_", "_relu_", "_relu_grad_")},
    "attack_grad": attack_grad,
    "crop_flip": crop_flip,
    "network_gradient": network_gradient,
    "network_attack_": network_attack_,
    **{n: lambda m, n=n: searched(m, n) for n in ("network_ascent_", "network_walk_", "network_squares_")},
    "linf_step_": step,
    "l2_step_": step,
    "random_start": random_start,
    **{
        n: lambda m, n=n: rows(m, n)
        for n in ("bat_loss", "bat_loss_backward", "pair_loss", "pair_loss_backward", "soft_target_loss",
                  "discrimination_loss", "discrimination_loss_backward", "holistic_loss", "ensemble_targets_")
    },
}  # fmt: skip


def other_tensor(m: Memory, t: Tensor, arguments: list[Any]) -> Tensor:
    """One that differs from ``t`` in something: layout, shape, type, values, or whose memory it is."""
    draw = m.draw
    if t.layout != torch.strided or not t.is_cpu or t.numel() > 10**6:
        return t  # it is odd already
    flat = t.reshape(-1)
    integer = t.dtype == torch.int64
    match draw.randrange(16):
        case 0:
            return m.own(torch.empty(0, dtype=t.dtype))
        case 1:
            return m.own(torch.ones((), dtype=t.dtype))
        case 2:
            return m.own(t.to(draw.choice(TYPES)))
        case 3 if t.dim():  # every second element
            whole = m.own(torch.cat([t, t], -1))
            return whole[..., ::2]
        case 4 if t.dim():
            return m.own(t[..., :1].clone()).expand(t.shape) if t.numel() else t
        case 5 if t.dim() > 1:
            return m.own(t.transpose(0, -1).contiguous()).transpose(0, -1)
        case 6 if t.dim() > 1:
            return m.own(t.transpose(0, -1).contiguous())
        case 7:  # virtual: nobody has the memory to make it whole
            return m.own(torch.ones((1,) * max(t.dim(), 1), dtype=t.dtype)).expand(
                *(draw.choice((2**44, 2**50)), *(1,) * (max(t.dim(), 1) - 1))
            )
        case 8 if t.is_floating_point():
            return m.own(torch.full(t.shape, draw.choice(FLOATS), dtype=torch.float64).to(t.dtype))
        case 8 | 9 if integer and t.numel():
            changed = m.own(t)
            for _ in range(draw.randrange(1, 4)):
                changed.view(-1)[draw.randrange(changed.numel())] = draw.choice(INTEGERS)
            return changed
        case 10 if t.dim():
            return m.own(t[:-1]) if len(t) else t
        case 11 if t.dim():
            return m.own(torch.cat([t, t]))
        case 12:
            return m.own(t.unsqueeze(draw.randrange(t.dim() + 1)))
        case 13:
            tensors = [a for a in arguments if isinstance(a, Tensor)]
            return draw.choice(tensors)
        case 14 if t.dim() == 4:
            return m.own(t.permute(0, 2, 3, 1).contiguous()).permute(0, 3, 1, 2)
        case 15 if flat.numel() > 1:  # shares memory with the argument, shifted
            whole = m.own(torch.cat([flat, flat[:1]]))
            for i, a in enumerate(arguments):
                if isinstance(a, Tensor) and a.shape == t.shape and a.dtype == t.dtype and a is not t:
                    arguments[i] = whole[1:].view(t.shape)
            return whole[:-1].view(t.shape)
    return t.to("meta") if draw.random() < 0.2 else t.to_sparse() if draw.random() < 0.1 and t.dim() else t


def call(number: int, seed: int, exact: bool) -> tuple[str, list[Any], Memory]:
    """An operator and its arguments; the same for the same numbers."""
    draw = random.Random(seed << 32 | number)
    torch.manual_seed(draw.randrange(2**31))
    m = Memory(draw, exact)
    names = sorted(VALID)
    name = names[number % len(names)]
    arguments = VALID[name](m)
    schema = getattr(torch.ops.bat_fast, name).default._schema.arguments
    for _ in range(draw.choice((0, 1, 1, 1, 2, 3))):
        i = draw.randrange(len(arguments))
        kind, value = str(schema[i].type), arguments[i]
        if kind.startswith("Optional") and (value is None or draw.random() < 0.3):
            arguments[i] = None
        elif isinstance(value, Tensor):
            arguments[i] = other_tensor(m, value, arguments)
        elif kind == "bool":
            arguments[i] = not value
        elif value is not None:
            arguments[i] = draw.choice({"int": INTEGERS, "float": FLOATS, "str": WORDS}[kind])
            if schema[i].name == "steps" and 7 < arguments[i] < 2**31:
                arguments[i] = 3  # a million steps are no fault, but take as long as they take
    return name, arguments, m


def told(value: Any) -> str:
    if not isinstance(value, Tensor):
        return repr(value)[:40]
    place = (
        f"{value.data_ptr():#x}"
        if value.layout == torch.strided and value.device.type == "cpu"
        else value.layout
    )
    strides = value.stride() if value.layout == torch.strided else ""
    return f"{value.dtype}{list(value.shape)}{strides}@{value.device.type}:{place}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--log", default=os.devnull)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if not given.exact:  # what asks for more memory than this gets an error, not the memory
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 30),) * 2)
    assert sorted(VALID) == sorted(_native.operators()), "an operator without a valid call in this file"
    log = os.open(given.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    outcomes: Counter[str] = Counter()
    answered = dict.fromkeys(VALID, 0)
    for number in range(given.first, given.first + given.count):
        name, arguments, memory = call(number, given.seed, given.exact)
        line = f"--seed {given.seed} --first {number}: {name}({', '.join(map(told, arguments))})"
        os.pwrite(log, line.encode().ljust(4096, b"\n")[:4096], 0)
        signal.alarm(SECONDS)
        try:
            getattr(torch.ops.bat_fast, name)(*arguments)
            outcomes["answered"] += 1
            answered[name] += 1
        except Exception as error:
            outcomes["refused"] += 1
            if given.verbose:
                print(type(error).__name__, str(error).splitlines()[0])
        if given.verbose:
            print(line)
        signal.alarm(0)
        if memory.broken():
            raise SystemExit(f"written outside of an argument: {line}")
    print(json.dumps({"calls": given.count, **outcomes, "by_name": answered}))


if __name__ == "__main__":
    main()
