"""Smooth activations, whose gradients make a better adversary than those of ReLU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bat_fast._checks import check_floating, check_number
from bat_fast._native import differentiable, operator

__all__ = ["smooth_relu", "softplus"]

_LARGEST = 2.0**126  # beyond it b x has overflowed, and f(x) = x
_LEAST = 1e-12  # of a sharpness that is divided by
_LINEAR_FROM = 80.0  # sharpness times x, where the exponential is still finite


def _accumulator(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _like(x: Tensor, values: Tensor) -> Tensor:
    return torch.empty_like(x).copy_(values)


def _deficit(u: Tensor) -> Tensor:
    """``1 - log(1 + u) / u`` for u >= 0, by its series where the difference would cancel."""
    series = torch.zeros_like(u)
    small = u.clamp(max=0.0625)
    for k in range(14, 1, -1):
        series = 1 / k - small * series
    return torch.where(u < 0.0625, u * series, 1 - u.log1p() / u)


def _point(x: Tensor, beta_raw: Tensor) -> tuple[Tensor, Tensor]:
    positive = x.to(beta_raw.dtype).clamp(min=0)
    return positive, (beta_raw.square().clamp(max=_LARGEST) * positive).clamp(max=_LARGEST)


def _fake_smooth_relu(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x)


@operator("smooth_relu(Tensor x, Tensor beta_raw) -> Tensor", fake=_fake_smooth_relu)
def _smooth_relu_reference(x: Tensor, beta_raw: Tensor) -> Tensor:
    positive, u = _point(x, beta_raw)
    return _like(x, positive * _deficit(u))


def _fake_smooth_relu_backward(
    grad: Tensor, x: Tensor, beta_raw: Tensor, with_beta: bool
) -> tuple[Tensor, Tensor]:
    del grad
    return torch.empty_like(x), beta_raw.new_empty(() if with_beta else (0,))


@operator(
    "smooth_relu_backward(Tensor grad, Tensor x, Tensor beta_raw, bool with_beta)"
    " -> (Tensor grad_x, Tensor grad_beta)",
    fake=_fake_smooth_relu_backward,
)
def _smooth_relu_backward_reference(
    grad: Tensor, x: Tensor, beta_raw: Tensor, with_beta: bool
) -> tuple[Tensor, Tensor]:
    """``with_beta=False``, as in an attack on frozen parameters, saves the sum; grad_beta is then empty."""
    positive, u = _point(x, beta_raw)
    slope = u / (1 + u)
    grad_x = _like(x, grad * slope)
    if not with_beta:
        return grad_x, beta_raw.new_empty(0)
    term = torch.where(u < 0.5, slope - _deficit(u), u.log1p() / u - 1 / (1 + u))
    total = (grad * positive * term).sum(dtype=torch.float64) * 2 / beta_raw
    return grad_x, torch.where(beta_raw == 0, 0.0, total).to(beta_raw.dtype)


def _smooth_relu_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs)


def _smooth_relu_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    with_beta = ctx.needs_input_grad[1]
    x, beta_raw = ctx.saved_tensors
    grad_x, grad_beta = torch.ops.bat_fast.smooth_relu_backward(grad.to(x.dtype), x, beta_raw, with_beta)
    return grad_x, grad_beta if with_beta else None


_call_smooth_relu = differentiable("smooth_relu", _smooth_relu_backward, _smooth_relu_setup)


def smooth_relu(x: Tensor, beta_raw: Tensor) -> Tensor:
    """SmoothReLU with a learnable sharpness (Xie et al. 2020).

    ``f(x) = x - log(b x + 1) / b`` for x >= 0, else 0, with ``b = beta_raw^2``. Its slope
    ``b x / (1 + b x)`` is continuous, and tends to that of ReLU for b -> inf. For b -> 0 the function and
    all its gradients tend to 0, which is their value at ``beta_raw = 0``; learning cannot leave that point.

    Args:
        x: any shape, float32, float16, bfloat16, or on a CPU float64.
        beta_raw: floating scalar []; the paper starts at 20. It is used in float64 for float64, else in
            float32.

    Returns:
        f(x) with the shape, dtype and memory format of ``x``; differentiable once, in both arguments. The
        gradient of ``beta_raw`` is summed in a fixed order, so a run can be repeated bit for bit.

    Raises:
        ValueError: ``beta_raw`` is not a scalar, or on another device. TypeError: a dtype does not fit.
    """
    check_floating("x", x, wide_only=False)
    if beta_raw.dim() != 0:
        raise ValueError(f"beta_raw must be a scalar tensor, got {list(beta_raw.shape)}")
    if not beta_raw.is_floating_point():
        raise TypeError(f"beta_raw must be a floating-point scalar, got {beta_raw.dtype}")
    if beta_raw.device != x.device:
        raise ValueError(f"beta_raw is on {beta_raw.device}, x on {x.device}: move one of them")
    return _call_smooth_relu(x, beta_raw.to(_accumulator(x)))


@operator("softplus(Tensor x, float sharpness) -> Tensor", fake=_fake_smooth_relu)
def _softplus_reference(x: Tensor, sharpness: float) -> Tensor:
    v = x.to(_accumulator(x))
    return _like(x, v.clamp(min=0) + (-(sharpness * v).abs()).exp().log1p() / sharpness)


def _fake_softplus_backward(grad: Tensor, x: Tensor, sharpness: float) -> Tensor:
    del grad, sharpness
    return torch.empty_like(x)


@operator(
    "softplus_backward(Tensor grad, Tensor x, float sharpness) -> Tensor grad_x", fake=_fake_softplus_backward
)
def _softplus_backward_reference(grad: Tensor, x: Tensor, sharpness: float) -> Tensor:
    return _like(x, grad * (sharpness * x.to(_accumulator(x))).sigmoid())


def _softplus_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    x, ctx.sharpness = inputs
    ctx.save_for_backward(x)


def _softplus_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    (x,) = ctx.saved_tensors
    return torch.ops.bat_fast.softplus_backward(grad.to(x.dtype), x, ctx.sharpness), None


_call_softplus = differentiable("softplus", _softplus_backward, _softplus_setup)


def softplus(x: Tensor, *, sharpness: float = 10.0) -> Tensor:
    """Parametric softplus (Xie et al. 2020): ``log(1 + exp(a x)) / a``, with slope ``sigmoid(a x)``.

    Args:
        x: any shape, float32, float16, bfloat16, or on a CPU float64.
        sharpness: a in the equation, in [1e-30, 1e30]; the paper uses 10, its code 1.

    Returns:
        f(x) with the shape, dtype and memory format of ``x``; differentiable once.

    Raises:
        ValueError: ``sharpness`` is outside its range. TypeError: the dtype does not fit.
    """
    check_floating("x", x, wide_only=False)
    check_number("sharpness", sharpness, 1e-30, 1e30)
    return _call_softplus(x, sharpness)


def _plain_smooth_relu(x: Tensor, beta_raw: Tensor) -> Tensor:
    """In a few operators: the reference has a series of 13 terms, which keeps the digits of small ``b x``."""
    wide = x if x.dtype == beta_raw.dtype else x.to(beta_raw.dtype)  # 16 bits are computed in 32
    positive, sharpness = wide.relu(), (beta_raw * beta_raw).clamp(_LEAST, _LARGEST)
    found = positive - (sharpness * positive).log1p() / sharpness
    return found if x.dtype == found.dtype else found.to(x.dtype)


def _plain_softplus(x: Tensor, sharpness: float) -> Tensor:
    return F.softplus(x, sharpness, _LINEAR_FROM)


def decompositions() -> dict[Any, Callable[..., Tensor]]:
    """What ``ExportedProgram.run_decompositions`` puts in the place of this package's operators.

    Returns:
        By operator, a function of its arguments. The operators are those that a network may hold: the smooth
        activations.

    Example:
        >>> program = torch.export.export(model.eval(), (x,)).run_decompositions(decompositions())
        >>> torch.onnx.export(program, dynamo=True).save("model.onnx")
    """
    own = torch.ops.bat_fast
    return {own.smooth_relu.default: _plain_smooth_relu, own.softplus.default: _plain_softplus}
