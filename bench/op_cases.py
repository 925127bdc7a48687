"""The operators at the sizes that matter, each beside the same in public PyTorch and the float64 truth."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import plain_ops as plain
import torch
from torch import Tensor

from bat_fast import _native, ops

EPS, STEP, ALPHA, TAU = 8 / 255, 2 / 255, 1.0, 0.1


@dataclass
class Work:
    """What is timed. Each call returns its results; ``restore`` undoes what calls did in place."""

    native: Callable[[], Any]
    eager: Callable[[], Any] | None
    best: partial[Any] | None
    exact: Callable[[], Any]  # in float64, or the same bits
    restore: Callable[[], object] = lambda: None
    bytes_moved: int = 0  # that no implementation avoids; 0: not limited by memory
    gemms: Callable[[], object] | None = None
    unchecked: tuple[str, ...] = ()  # columns that draw other random numbers
    differentiated: bool = False  # native is a loss and its gradient by autograd


class Case(NamedTuple):
    """``reach``: column -> how many times its speed the native kernel has to reach (floor: <= 1)."""

    operator: str
    kernel: str  # the native kernel behind it
    size: str
    make: Callable[[], Work]
    reach: dict[str, float] = {}  # noqa: RUF012
    compiles: bool = False
    tolerance: float = 1e-5  # of the norm of the error, relative

    @property
    def name(self) -> str:
        return f"{self.operator} {self.size}"


@dataclass
class Scene:
    """Random inputs on one device, and calls of an operator over them."""

    device: str

    def rand(self, *shape: int) -> Tensor:
        return torch.rand(shape, device=self.device)

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device)

    def labels(self, n: int, classes: int) -> Tensor:
        return torch.randint(0, classes, (n,), device=self.device)

    def step(self, norm: str, *shape: int) -> Work:
        clean, grad = self.rand(*shape), self.randn(*shape)
        start = (clean + 0.5 * EPS * self.randn(*shape).clamp(-1, 1)).clamp(0, 1)
        adv, slope, eps = start.clone(), grad.clone(), EPS if norm == "linf" else 0.5
        native = ops.linf_step_ if norm == "linf" else ops.l2_step_
        textbook = plain.linf_step if norm == "linf" else plain.l2_step
        if norm == "linf":
            low, high = (clean - eps).clamp_(0, 1), (clean + eps).clamp_(0, 1)
            best = partial(plain.linf_step_best, adv, slope, low, high, STEP)
        else:
            best = partial(plain.l2_step_best, adv, slope, clean, torch.empty_like(adv), STEP, eps)
        return Work(
            native=lambda: native(adv, slope, clean, step_size=STEP, eps=eps),
            eager=lambda: textbook(adv, slope, clean, STEP, eps),
            best=best,
            exact=lambda: textbook(start.double(), grad.double(), clean.double(), STEP, eps),
            restore=lambda: (adv.copy_(start), slope.copy_(grad)),
            bytes_moved=4 * adv.nbytes,
        )

    def start(self, *shape: int) -> Work:
        clean = self.rand(*shape)
        index = torch.arange(len(clean), device=self.device)
        reference = _native.reference_of("random_start")
        return Work(
            native=lambda: ops.random_start(clean, eps=EPS, seed=1, index=index),
            eager=lambda: plain.random_start(clean, EPS),
            best=partial(plain.random_start_best, clean, torch.empty_like(clean), EPS),
            exact=lambda: reference(clean, index, EPS, "linf", 1, 0, 0.0, 1.0),
            bytes_moved=2 * clean.nbytes,
            unchecked=("eager", "best", "compiled"),
        )

    def rows(self, operator: str, n: int, classes: int) -> Work:
        """A loss and its gradient, on logits [N, C]."""
        z, other, y = 3 * self.randn(n, classes), 3 * self.randn(n, classes), self.labels(n, classes)
        soft, work, more = other.softmax(1), torch.empty_like(z), torch.empty_like(z)
        leaf, other_leaf = z.clone().requires_grad_(), other.clone().requires_grad_()

        def with_grad(loss: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
            return loss.detach(), *torch.autograd.grad(loss, leaves)

        def exact(f: Callable[..., Any], *inputs: Tensor) -> Callable[[], Any]:
            return lambda: f(*(t.double() if t.is_floating_point() else t for t in inputs))

        if operator == "attack_grad":
            return Work(
                lambda: ops.attack_grad(z, y), lambda: plain.ce_grad(z, y),
                partial(plain.ce_grad_best, z, y, work), exact(plain.ce_grad, z, y),
                bytes_moved=2 * z.nbytes,
            )  # fmt: skip
        if operator == "bat_loss":
            return Work(
                lambda: with_grad(ops.bat_loss(leaf, y, alpha=ALPHA)[0], leaf),
                lambda: plain.bat_loss(z, y, ALPHA),
                partial(plain.bat_loss_best, z, y, work, ALPHA),
                exact(partial(plain.bat_loss, alpha=ALPHA), z, y),
                differentiated=True,
                bytes_moved=3 * z.nbytes,  # forward one read, backward a read and a write
            )
        if operator == "soft_target_loss":
            return Work(
                lambda: with_grad(ops.soft_target_loss(leaf, soft)[0], leaf),
                lambda: plain.soft_target_loss(z, soft),
                partial(plain.soft_target_loss_best, z, soft, work, more),
                exact(plain.soft_target_loss, z, soft),
                differentiated=True,
                bytes_moved=3 * z.nbytes,
            )
        if operator == "kl_loss":
            return Work(
                lambda: with_grad(ops.kl_loss(leaf, other_leaf)[0], leaf, other_leaf),
                lambda: plain.kl_loss(z, other),
                partial(plain.kl_loss_best, z, other, work, more),
                exact(plain.kl_loss, z, other),
                differentiated=True,
                bytes_moved=4 * z.nbytes,
            )
        return Work(
            lambda: with_grad(ops.mart_loss(leaf, other_leaf, y, beta=5.0)[0], leaf, other_leaf),
            lambda: plain.mart_loss(z, other, y, 5.0), None,
            exact(partial(plain.mart_loss, beta=5.0), z, other, y),
            differentiated=True, bytes_moved=4 * z.nbytes,
        )  # fmt: skip

    def discrimination(self, n: int, width: int) -> Work:
        features, y = self.randn(n, width), self.labels(n, 100)
        leaf, buffers = features.clone().requires_grad_(), [self.rand(n, n), self.rand(n, n)]

        def native() -> tuple[Tensor, Tensor]:
            loss = ops.discrimination_loss(leaf, y, temperature=TAU)
            return loss.detach(), torch.autograd.grad(loss, leaf)[0]

        return Work(
            native, lambda: plain.discrimination_loss(features, y, TAU),
            partial(plain.discrimination_loss_best, features, y, *buffers, TAU),
            lambda: plain.discrimination_loss(features.double(), y, TAU),
            gemms=lambda: torch.mm(torch.mm(features, features.T, out=buffers[0]), features),
            differentiated=True,
        )  # fmt: skip

    def holistic(self, form: str, n: int) -> Work:
        losses, reference = 2 * self.rand(n), _native.reference_of("holistic_loss")
        solver = None
        if importlib.util.find_spec("cvxpy"):
            from holistic_solver import weights_by_solver

            solver = partial(weights_by_solver, losses.double().cpu().numpy(), 0.1, 0.1, form)
        return Work(
            lambda: ops.holistic_weights(losses, alpha=0.1, r=0.1, form=form), solver,
            partial(reference, losses, 0.1, 0.1, form),
            lambda: reference(losses.double(), 0.1, 0.1, form)[1],
            unchecked=("eager", "best"),
        )  # fmt: skip

    def ensemble(self, samples: int, n: int, classes: int) -> Work:
        memory, z = self.rand(samples, classes), 3 * self.randn(n, classes)
        index, start = torch.randperm(samples, device=self.device)[:n], memory.clone()
        buffers = torch.empty_like(z), torch.empty_like(z)
        return Work(
            lambda: ops.ensemble_targets_(memory, index, z, momentum=0.9),
            lambda: plain.ensemble_targets(memory, index, z, 0.9),
            partial(plain.ensemble_targets_best, memory, index, z, *buffers, 0.9),
            lambda: plain.ensemble_targets(start.double(), index, z.double(), 0.9),
            restore=lambda: memory.copy_(start),
            bytes_moved=4 * z.nbytes,
        )  # fmt: skip

    def activation(self, name: str, *shape: int) -> Work:
        x, grad = self.randn(*shape), self.randn(*shape)
        leaf, beta = x.clone().requires_grad_(), torch.tensor(20.0, device=self.device, requires_grad=True)
        leaves = (leaf, beta) if name == "smooth_relu" else (leaf,)
        arguments = (beta.detach(),) if name == "smooth_relu" else ()

        def native() -> tuple[Tensor, ...]:
            out = getattr(ops, name)(*leaves)
            return out.detach(), *torch.autograd.grad(out, leaves, grad)

        wide = [t.double() for t in arguments]
        return Work(
            native, lambda: getattr(plain, name)(x, *arguments, grad),
            partial(getattr(plain, f"{name}_best"), x, *arguments, grad),
            lambda: getattr(plain, name)(x.double(), *wide, grad.double()),
            differentiated=True,
            bytes_moved=5 * x.nbytes,  # forward a read and a write, backward two reads and a write
        )  # fmt: skip

    def affine(self, dtype: torch.dtype, *shape: int) -> Work:
        x, other = (self.randn(*shape).to(dtype, memory_format=torch.channels_last) for _ in range(2))
        start = self.randn(*shape).to(dtype, memory_format=torch.channels_last)
        scale, shift, grad = self.rand(shape[1]) - 0.5, self.randn(shape[1]), start.clone()
        constants = torch.zeros_like(scale), torch.ones_like(scale)

        def native() -> tuple[Tensor, Tensor]:
            y = ops.affine(x, scale, shift, relu=True)
            return y, ops.affine_grad_(grad, y=y, scale=scale, other=other)

        tensors = x, scale, shift, start, other
        return Work(
            native, lambda: plain.affine(*tensors),
            partial(plain.affine_best, x, scale, shift, grad, other, constants),
            lambda: plain.affine(*(t.double() for t in tensors)),
            restore=lambda: grad.copy_(start),
            bytes_moved=6 * x.nbytes,  # forward a read and a write, backward three reads and a write
        )  # fmt: skip

    def crop(self, samples: int, n: int, size: int) -> Work:
        pad = 4
        images = torch.randint(0, 256, (samples, size, size, 3), dtype=torch.uint8, device=self.device)
        padded = torch.nn.functional.pad(images.permute(0, 3, 1, 2), (pad,) * 4).contiguous()
        index = torch.randperm(samples, device=self.device)[:n]
        rule: dict[str, Any] = {"pad": pad, "seed": 1, "epoch": 2}
        out, work = (
            torch.empty(n, 3, size, size, device=self.device, dtype=t) for t in (torch.float32, torch.uint8)
        )
        draw = importlib.import_module("bat_fast.ops.augment")._draw
        row, column, mirrored = draw(index, pad, 1, 2, True)
        corners = torch.stack([row, column], dim=1) + pad
        places = list(zip(*(t.tolist() for t in (index, row + pad, column + pad, mirrored)), strict=True))
        return Work(
            lambda: ops.crop_flip(images, index, out=out, **rule),
            lambda: plain.gather_crop(padded, index, corners, mirrored, size),
            partial(plain.slice_crop, padded, places, work, out),
            lambda: plain.gather_crop(padded, index, corners, mirrored, size),
            bytes_moved=5 * out.numel(),
        )  # fmt: skip
