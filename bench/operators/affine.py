"""A scale and a shift for each channel, and the gradient at the end of a layer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from bat_fast import ops
from operators import SMALL_IMAGES, Call, Case, Inputs, Work, layouts, size

_EPS = 1e-5  # torch 2.11 takes no 0


def affine(x: Tensor, scale: Tensor, shift: Tensor, grad: Tensor, other: Tensor) -> tuple[Tensor, ...]:
    x = x.detach().requires_grad_()
    zero, variance = torch.zeros_like(scale), torch.full_like(scale, 1 - _EPS)
    out = F.batch_norm(x, zero, variance, scale, shift, eps=_EPS).relu()
    return out.detach(), torch.autograd.grad(out, x, grad)[0] + other


def affine_best(
    x: Tensor, scale: Tensor, shift: Tensor, grad: Tensor, other: Tensor, constants: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    out = F.batch_norm(x, *constants, scale, shift, eps=_EPS).relu_()
    torch.ops.aten.threshold_backward.grad_input(grad, out, 0, grad_input=grad)
    return out, grad.mul_(scale.to(x.dtype).view(-1, 1, 1)).add_(other)


def cases(inputs: Inputs) -> Iterator[Case]:
    shape = (512 if inputs.gpu else 32), 64, 32, 32
    reach = {"floor": 0.85} if inputs.gpu else {}
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 5e-3)):
        words = f"{size(shape)} {str(dtype).removeprefix('torch.')}"
        work = partial(_layer, inputs, dtype, shape)
        yield Case("affine", words, work, reach, compiles=True, tolerance=tolerance)
        block = partial(_block, inputs, dtype, shape)
        yield Case("affine_relu_", words, block, reach, compiles=True, tolerance=tolerance)


def _layer(inputs: Inputs, dtype: torch.dtype, shape: tuple[int, ...]) -> Work:
    x, other, start = (inputs.randn(*shape).to(dtype, memory_format=torch.channels_last) for _ in range(3))
    scale, shift, grad = inputs.rand(shape[1]) - 0.5, inputs.randn(shape[1]), start.clone()
    tensors, constants = (
        (x, scale, shift, start, other),
        (
            torch.zeros_like(scale),
            torch.full_like(scale, 1 - _EPS),
        ),
    )

    def native() -> tuple[Tensor, Tensor]:
        y = ops.affine(x, scale, shift, relu=True)
        return y, ops.affine_grad_(grad, y=y, scale=scale, other=other)

    return Work(
        native=native,
        eager=lambda: affine(*tensors),
        best=partial(affine_best, x, scale, shift, grad, other, constants),
        exact=lambda: affine(*(t.double() for t in tensors)),
        restore=lambda: grad.copy_(start),
        bytes_moved=6 * x.nbytes,  # forward a read and a write, backward three reads and a write
    )


def block(
    x: Tensor, residual: Tensor, scale: Tensor, shift: Tensor, grad: Tensor, other: Tensor
) -> tuple[Tensor, ...]:
    total = x + residual
    return total, *affine(total, scale, shift, grad, other)


def block_best(
    x: Tensor,
    residual: Tensor,
    scale: Tensor,
    shift: Tensor,
    grad: Tensor,
    other: Tensor,
    constants: tuple[Tensor, ...],
) -> tuple[Tensor, ...]:
    return x.add_(residual), *affine_best(x, scale, shift, grad, other, constants)


def _block(inputs: Inputs, dtype: torch.dtype, shape: tuple[int, ...]) -> Work:
    drawn = (inputs.randn(*shape).to(dtype, memory_format=torch.channels_last) for _ in range(4))
    begin, residual, other, start = drawn
    scale, shift, x, grad = inputs.rand(shape[1]) - 0.5, inputs.randn(shape[1]), begin.clone(), start.clone()
    tensors = (begin, residual, scale, shift, start, other)
    constants = (torch.zeros_like(scale), torch.full_like(scale, 1 - _EPS))

    def native() -> tuple[Tensor, ...]:
        y, bits = torch.ops.bat_fast.affine_relu_(x, residual, scale, shift)
        torch.ops.bat_fast.affine_relu_grad_(grad, bits, scale, other)
        return x, y, grad

    def restore() -> None:
        x.copy_(begin)
        grad.copy_(start)

    return Work(
        native=native,
        eager=lambda: block(*tensors),
        best=partial(block_best, x, residual, scale, shift, grad, other, constants),
        exact=lambda: block(*(t.double() for t in tensors)),
        restore=restore,
        # Forward two reads and two writes, backward two reads and a write; the bits twice.
        bytes_moved=7 * x.nbytes + 2 * x.numel() // 8,
    )


def small(inputs: Inputs) -> Iterator[Call]:
    for shape in [*SMALL_IMAGES, (2, 16, 5, 3)]:
        scale, shift = inputs.randn(shape[1]), inputs.randn(shape[1])
        for layout, (x, grad, other) in layouts(*(inputs.randn(*shape) for _ in range(3))):
            run = partial(ops.affine, x, scale, shift, relu=True)
            yield Call(f"affine {size(shape)}{layout}", run)
            yield Call(f"affine_relu_ {size(shape)}{layout}", partial(_relu, x, other, scale, shift, grad))
            yield Call(
                f"affine_grad_ {size(shape)}{layout}", partial(_grad, grad, y=x, scale=scale, other=other)
            )


def _relu(x: Tensor, other: Tensor, scale: Tensor, shift: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    total, passed = x.clone(), grad.clone()
    y, bits = torch.ops.bat_fast.affine_relu_(total, other, scale, shift)
    torch.ops.bat_fast.affine_relu_grad_(passed, bits, scale, other)
    return total, y, bits.float(), passed


def _grad(grad: Tensor, **parts: Tensor) -> Tensor:
    return ops.affine_grad_(grad.clone(), **parts)
