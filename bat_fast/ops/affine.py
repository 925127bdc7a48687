"""Scale, shift and ReLU per channel in one pass: batch norm in eval mode where no convolution takes it in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bat_fast._checks import check_like
from bat_fast._native import accumulator, changed, differentiable, operator, transformed

__all__ = ["affine", "affine_grad_"]

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *[1] * (x.dim() - 2))


def _fake_affine(x: Tensor, scale: Tensor, shift: Tensor, relu: bool) -> Tensor:
    del scale, shift, relu
    return torch.empty_like(x)


@operator("affine(Tensor x, Tensor scale, Tensor shift, bool relu) -> Tensor", fake=_fake_affine)
def _affine_reference(x: Tensor, scale: Tensor, shift: Tensor, relu: bool) -> Tensor:
    y = x.to(scale.dtype) * _per_channel(scale, x) + _per_channel(shift, x)
    return torch.empty_like(x).copy_(y.relu() if relu else y)


def _fake_affine_grad_(grad: Tensor, y: Tensor | None, scale: Tensor | None, other: Tensor | None) -> None:
    del grad, y, scale, other


@operator(
    "affine_grad_(Tensor(a!) grad, Tensor? y, Tensor? scale, Tensor? other) -> ()", fake=_fake_affine_grad_
)
def _affine_grad_reference(
    grad: Tensor, y: Tensor | None, scale: Tensor | None, other: Tensor | None
) -> None:
    passed = grad if y is None else grad.masked_fill(y <= 0, 0)
    if scale is not None:
        passed = passed.to(scale.dtype) * _per_channel(scale, grad)
    grad.copy_(passed if other is None else passed + other.to(passed.dtype))


def _fake_affine_relu_(
    x: Tensor, other: Tensor | None, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    del other, scale, shift
    return torch.empty_like(x), x.new_empty(-(-x.numel() // 8), dtype=torch.uint8)


@operator(
    "affine_relu_(Tensor(a!) x, Tensor? other, Tensor scale, Tensor shift) -> (Tensor, Tensor)",
    fake=_fake_affine_relu_,
)
def _affine_relu_reference(
    x: Tensor, other: Tensor | None, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    """``x <- x + other``; the result of `affine` with ReLU, and a bit for each of its elements, in memory's
    order: whether the gradient passes."""
    if other is not None:
        x.add_(other)
    y = _affine_reference(x, scale, shift, True)
    passes = ~(y.as_strided((y.numel(),), (1,)) <= 0)
    eights = torch.nn.functional.pad(passes, (0, -y.numel() % 8)).view(-1, 8)
    return y, (eights << torch.arange(8, device=x.device)).sum(1).to(torch.uint8)


def _fake_affine_relu_grad_(grad: Tensor, bits: Tensor, scale: Tensor, other: Tensor | None) -> None:
    del grad, bits, scale, other


@operator(
    "affine_relu_grad_(Tensor(a!) grad, Tensor bits, Tensor scale, Tensor? other) -> ()",
    fake=_fake_affine_relu_grad_,
)
def _affine_relu_grad_reference(grad: Tensor, bits: Tensor, scale: Tensor, other: Tensor | None) -> None:
    """`affine_grad_` with the bits of `affine_relu_`; ``grad`` is laid out as its result was."""
    passes = (bits[:, None] >> torch.arange(8, device=grad.device)) & 1
    y = passes.flatten()[: grad.numel()].as_strided(grad.shape, grad.stride())
    _affine_grad_reference(grad, y, scale, other)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, scale, _, relu = inputs
    ctx.save_for_backward(scale, output if relu else None)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    if any(ctx.needs_input_grad[1:3]):
        raise RuntimeError("bat_fast.ops.affine has a gradient for x alone: detach scale and shift")
    scale, y = ctx.saved_tensors
    if transformed():  # which has no rule for what changes in place
        masked = grad if y is None else grad.where(~(y <= 0), 0)
        wide = masked.to(scale.dtype) * scale.view(1, -1, *[1] * (grad.dim() - 2))
        return wide.to(grad.dtype), None, None, None
    passed = grad.clone()
    torch.ops.bat_fast.affine_grad_(passed, y, scale, None)
    return passed, None, None, None


_call_affine = differentiable("affine", _backward, _setup)


def affine(x: Tensor, scale: Tensor, shift: Tensor, *, relu: bool = False) -> Tensor:
    """``y = x scale + shift`` per channel, then ``max(y, 0)`` with ``relu``.

    What batch norm in eval mode and the activation behind it compute, in one pass over memory: there
    ``scale = gamma / sqrt(var + eps)`` and ``shift = beta - mean scale``.

    Args:
        x: [N, C, ...] float32, float64, float16 or bfloat16, in any order of dimensions; 16 bits are computed
            in float32 and rounded once.
        scale, shift: [C] floating point, used in float64 for float64, else in float32. They are constants:
            the gradient is that of ``x`` alone.

    Returns:
        y with the shape, dtype and memory format of ``x``; differentiable once, in ``x``.

    Raises:
        ValueError: a shape or device does not fit. TypeError: a dtype does not fit.
        RuntimeError: in the backward pass, where ``scale`` or ``shift`` asks for a gradient.
    """
    _check("x", x)
    return _call_affine(x, _channels("scale", scale, "x", x), _channels("shift", shift, "x", x), relu)


def affine_grad_(
    grad: Tensor, *, y: Tensor | None = None, scale: Tensor | None = None, other: Tensor | None = None
) -> Tensor:
    """The gradient of `affine` at its input, in place: ``grad <- grad [y > 0] scale + other``.

    Args:
        grad: [N, C, ...] gradient at the output, of any dtype that `affine` takes; overwritten. With neither
            ``scale`` nor channels, any shape.
        y: the output of ReLU, like ``grad``; None: there was none. NaN passes, as in torch.
        scale: [C] floating point; None is 1.
        other: like ``grad``: what reached the input by another branch; None is 0.

    Returns:
        ``grad``.

    Raises:
        ValueError: a shape or device does not fit. TypeError: a dtype does not fit.
    """
    _check("grad", grad, least=0 if scale is None else 2)
    for name, tensor in (("y", y), ("other", other)):
        if tensor is not None:
            check_like(name, tensor, "grad", grad)
            if tensor.dtype != grad.dtype:
                raise TypeError(f"{name} must be {grad.dtype} as grad is, got {tensor.dtype}")
    factor = None if scale is None else _channels("scale", scale, "grad", grad)
    torch.ops.bat_fast.affine_grad_(grad, y, factor, other)
    return changed(grad)


unchecked_affine = torch.ops.bat_fast.affine.default
unchecked_affine_grad_ = torch.ops.bat_fast.affine_grad_.default
unchecked_affine_relu_ = torch.ops.bat_fast.affine_relu_.default
unchecked_affine_relu_grad_ = torch.ops.bat_fast.affine_relu_grad_.default
"""The operators as their schemas have them, for an engine that made every argument itself: between two
convolutions, with the caches full of other things, the checks cost 0.1 ms, as much as 2 MB of images."""


def _check(name: str, x: Tensor, least: int = 2) -> None:
    if x.dtype not in _DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
        raise TypeError(f"{name} must be one of {names}, got {x.dtype}")
    if x.dim() < least:
        raise ValueError(f"{name} must be [N, C, ...], got {list(x.shape)}")


def _channels(name: str, values: Tensor, of: str, x: Tensor) -> Tensor:
    """``values`` [C] as the kernels take them."""
    if values.shape != x.shape[1:2]:
        raise ValueError(
            f"{name} must be [C] = [{x.shape[1]}] for {of} {list(x.shape)}, got {list(values.shape)}"
        )
    if values.device != x.device:
        raise ValueError(f"{name} is on {values.device}, {of} on {x.device}: move one of them")
    if not values.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {values.dtype}")
    return values.to(accumulator(x)).contiguous()
