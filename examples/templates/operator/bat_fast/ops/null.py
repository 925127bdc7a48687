"""The smallest operator, to copy: schema, reference, fake, gradient and public function of ``scale x``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bat_fast._checks import check_floating, check_number
from bat_fast._native import differentiable, operator

__all__ = ["null_scale"]  # what `bat_fast.ops` shows; `python tests/ops/test_stub.py` tells type checkers


# The fake gives shape, dtype and strides of the result to torch.compile, and computes nothing.
def _fake(x: Tensor, *_: float) -> Tensor:
    return torch.empty_like(x)


# The reference answers where no native kernel does, and is what the kernels are compared with.
@operator("null_scale(Tensor x, float scale) -> Tensor", fake=_fake)
def _reference(x: Tensor, scale: float) -> Tensor:
    return torch.empty_like(x).copy_(scale * x)


# What the gradient needs is kept; tensors would go to ctx.save_for_backward.
def _setup(ctx: Any, inputs: tuple[Any, ...], _output: Tensor) -> None:
    x, ctx.scale = inputs
    ctx.dtype = x.dtype


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return torch.ops.bat_fast.null_scale(grad.to(ctx.dtype), ctx.scale), None  # one for each input


differentiable("null_scale", _backward, _setup)


def null_scale(x: Tensor, *, scale: float) -> Tensor:
    """``scale x``.

    Args:
        x: any shape and layout; float32 or float64, on CUDA float32, float16 or bfloat16.
        scale: a finite number.

    Returns:
        ``scale x`` with the shape, dtype and memory format of ``x``; differentiable once, in ``x``.

    Raises:
        ValueError: ``scale`` is not finite. TypeError: the dtype does not fit.
    """
    check_floating("x", x)  # errors come before any kernel runs, and name the argument
    check_number("scale", scale)
    return torch.ops.bat_fast.null_scale(x, scale)
