"""Any shape, layout, dtype and scale: the kernels against the references in float64."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from torch import Tensor

from bat_fast import _native

SEED = int(os.environ["BAT_FAST_TEST_SEED"])
# Every crop, batch of soft labels and activation has such a test beside its other ones.
ELSEWHERE = {
    "crop_flip", "ensemble_targets_", "smooth_relu", "smooth_relu_backward", "softplus", "softplus_backward",
    "network_gradient", "network_attack_",
}  # fmt: skip
LAYOUTS = ("contiguous", "channels_last", "gaps", "transposed", "offset")
# Errors relative to the largest value of a result: float32 sums of exponentials, and of 1e4 products.
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10}


class Call(NamedTuple):
    """Arguments of an operator's schema; the place of a tensor that it changes.

    ``unit`` is what a result is made of where it cancels: errors are relative to it, or to the result.
    """

    arguments: list[Any]
    changed: int | None = None
    unit: float = 1e-30


def laid_out(t: Tensor, layout: str) -> Tensor:
    """The same values in another order of memory."""
    if layout == "channels_last" and t.dim() == 4:
        return t.clone(memory_format=torch.channels_last)
    if layout == "gaps":
        return torch.stack([t, torch.full_like(t, torch.nan)], dim=-1)[..., 0]
    if layout == "transposed" and t.dim() > 1:
        return t.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == "offset":  # not aligned to a vector
        return torch.cat([t.new_full((1,), torch.nan), t.flatten()])[1:].view(t.shape)
    return t.clone(memory_format=torch.contiguous_format)


class Draw:
    """Random inputs: what shrinks comes from hypothesis, what does not from a generator that it seeds."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31), label="seed"))
        self.dtype = data.draw(st.sampled_from(list(TOLERANCE)), label="dtype")
        self.scale = data.draw(st.sampled_from([1.0, 0.0, 1e-6, 1e4]), label="scale")

    def integer(self, low: int, high: int) -> int:
        return self.data.draw(st.integers(low, high))

    def one_of(self, *values: Any) -> Any:
        return self.data.draw(st.sampled_from(values))

    def normal(self, *shape: int, scale: float | None = None) -> Tensor:
        values = torch.randn(shape, generator=self.generator) * (self.scale if scale is None else scale)
        return laid_out(values.to(self.dtype), self.one_of(*LAYOUTS))

    def uniform(self, *shape: int) -> Tensor:
        return laid_out(torch.rand(shape, generator=self.generator).to(self.dtype), self.one_of(*LAYOUTS))

    def integers(self, high: int, n: int) -> Tensor:
        values = torch.randint(0, high, (n,), generator=self.generator)
        return self.one_of(values, torch.stack([values, values], dim=1)[:, 0])

    def rows(self, least: int = 1) -> tuple[int, int]:
        return self.integer(1, 20), self.one_of(least, self.integer(least, 40), self.integer(257, 1100))

    def images(self) -> tuple[int, ...]:
        few = st.integers(1, 9)
        return self.data.draw(st.one_of(st.tuples(few), st.tuples(few, few), st.tuples(few, few, few, few)))


def step(d: Draw) -> Call:
    shape = d.images()
    clean, grad = d.uniform(*shape), d.normal(*shape)
    adv = d.uniform(*shape)
    return Call([adv, grad, clean, d.one_of(0.0, 0.1, 1.0), d.one_of(0.0, 0.05, 2.0), 0.0, 1.0], changed=0)


def random_start(d: Draw) -> Call:
    clean = d.uniform(*d.images())
    index = torch.randint(-(2**62), 2**62, (len(clean),), generator=d.generator)
    norm, draw = d.one_of("linf", "l2", "gaussian"), d.one_of(0, 1, 2**32 - 1)
    return Call([clean, index, d.one_of(0.0, 0.1), norm, d.integer(-(2**63), 2**63 - 1), draw, 0.0, 1.0])


def attack_grad(d: Draw) -> Call:
    n, classes = d.rows(least=4)
    loss, targeted = d.one_of("ce", "margin", "dlr", "kl"), d.one_of(False, True)
    targeted = targeted and loss != "kl"
    scale = max(d.scale, 1e-2) if loss == "dlr" else None  # its denominator is a difference of logits
    soft = (
        d.normal(n, classes).softmax(1) if loss in ("ce", "kl") and not targeted and d.one_of(0, 1) else None
    )
    reference = d.normal(n, classes) if loss == "kl" else None
    label = d.integers(classes, n) if targeted and loss == "dlr" else None
    z = d.normal(n, classes, scale=scale)
    unit = 10 / scale if scale else 1.0 if loss == "kl" else 1 / classes
    return Call([z, d.integers(classes, n), loss, reference, soft, 3.0, targeted, label], unit=unit)


def bat_loss(d: Draw) -> Call:
    n, classes = d.rows()
    normalize = d.one_of("weights", "batch")
    return Call([d.normal(n, classes), d.integers(classes, n), d.one_of(0.0, 1.0, 5.0), normalize])


def bat_loss_backward(d: Draw) -> Call:
    n, classes = d.rows()
    z = d.normal(n, classes)
    top = z.amax(1)
    norm = torch.stack([top, (z - top[:, None]).exp().sum(1).log()], dim=1)
    norm = laid_out(norm, d.one_of("contiguous", "gaps"))
    grad_loss, total = z.new_tensor(-3.0), z.new_tensor(1.5)
    return Call([grad_loss, z, d.integers(classes, n), d.normal(n, scale=1.0), norm, total])


def soft_target_loss(d: Draw) -> Call:
    n, classes = d.rows()
    return Call([d.normal(n, classes), d.normal(n, classes).softmax(1)], unit=1 / (n * classes))


def pair_loss(d: Draw) -> Call:
    n, classes = d.rows()
    target, beta = d.one_of((None, 0.0), (d.integers(classes, n), 5.0))
    return Call([d.normal(n, classes), d.normal(n, classes), target, beta], unit=max(1.0, d.scale) / n)


def discrimination_loss(d: Draw) -> Call:
    n, width = d.integer(1, 40), d.one_of(1, 3, 16, 67)
    weights = d.one_of(None, d.uniform(n))
    features = d.normal(n, width, scale=max(d.scale, 1e-6))  # the direction of a zero is nowhere
    temperature, denominator = d.one_of(0.1, 1.0), d.one_of("all", "negatives")
    unit = 1 / (temperature * features.norm(dim=1).min().item())
    return Call([features, d.integers(5, n), temperature, weights, denominator], unit=unit)


def holistic_loss(d: Draw) -> Call:
    losses = d.normal(d.integer(1, 60)).abs()
    return Call([losses, d.one_of(0.0, 0.1, 0.7), d.one_of(0.0, 0.1, 1.0), d.one_of("hd", "hr")])


def affine(d: Draw) -> Call:
    shape = d.integer(1, 5), d.one_of(1, 3, 16, 40), *d.one_of((), (7,), (3, 5), (16, 9))
    scale, shift = (d.normal(shape[1], scale=1.0).contiguous() for _ in range(2))
    return Call([d.normal(*shape), scale, shift, d.one_of(False, True)], unit=1.0)


def affine_grad_(d: Draw) -> Call:
    shape = d.integer(1, 5), d.one_of(1, 3, 16, 40), *d.one_of((), (7,), (3, 5), (16, 9))
    scale = d.one_of(None, d.normal(shape[1], scale=1.0).contiguous())
    y, other = d.one_of(None, d.normal(*shape)), d.one_of(None, d.normal(*shape))
    return Call([d.normal(*shape), y, scale, other], changed=0, unit=d.scale)


CASES: dict[str, Callable[[Draw], Call]] = {
    "linf_step_": step, "l2_step_": step, "random_start": random_start, "attack_grad": attack_grad,
    "bat_loss": bat_loss, "bat_loss_backward": bat_loss_backward, "soft_target_loss": soft_target_loss,
    "pair_loss": pair_loss, "discrimination_loss": discrimination_loss, "holistic_loss": holistic_loss,
    "affine": affine, "affine_grad_": affine_grad_,
}  # fmt: skip


def test_every_operator_is_here():
    assert set(CASES) | ELSEWHERE == set(_native.operators())


def outcome(run: Callable[..., Any], arguments: list[Any], changed: int | None) -> list[Tensor]:
    result = run(*arguments)
    if changed is not None:
        return [arguments[changed]]
    return [result] if isinstance(result, Tensor) else list(result)


def wide(argument: Any) -> Any:
    """In float64, on memory of its own."""
    if isinstance(argument, Tensor) and argument.is_floating_point():
        return argument.to(torch.float64, copy=True, memory_format=torch.contiguous_format)
    return argument


@pytest.mark.parametrize("name", CASES)
@seed(SEED)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_kernel_is_the_reference_in_float64(name, data):
    draw = Draw(data)
    call = CASES[name](draw)
    exact = outcome(_native.reference_of(name), [wide(a) for a in call.arguments], call.changed)
    ours = outcome(getattr(torch.ops.bat_fast, name), call.arguments, call.changed)
    for got, want in zip(ours, exact, strict=True):
        assert got.shape == want.shape
        largest = want[want.isfinite()].abs().max().item() if want.isfinite().any() else 0.0
        close = {"rtol": 0, "atol": TOLERANCE[draw.dtype] * max(largest, call.unit), "equal_nan": True}
        torch.testing.assert_close(got.double(), want.double(), **close)
