"""Smooth activations and their gradients."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from bat_fast import ops
from operators import SMALL_IMAGES, Call, Case, Inputs, Work, differentiated, layouts, leaves, size, with_grad

BETA, SHARPNESS = 20.0, 10.0


def smooth_relu(x: Tensor, beta_raw: Tensor) -> Tensor:
    b, positive = beta_raw.square(), x.clamp(min=0)
    return positive - torch.log(b * positive + 1) / b


def smooth_relu_best(x: Tensor, beta_raw: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    b, positive = beta_raw.square(), x.clamp(min=0)
    u = positive * b
    log = u.log1p().div_(b)
    slope = u / (u + 1)
    grad_beta = log.sub(positive / (u + 1)).mul_(grad).sum() * 2 / beta_raw
    return positive.sub_(log), slope.mul_(grad), grad_beta


def softplus(x: Tensor) -> Tensor:
    return torch.log(1 + torch.exp(SHARPNESS * x)) / SHARPNESS


def softplus_best(x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    return F.softplus(x, SHARPNESS, 1e9), torch.ops.aten.softplus_backward(grad, x, SHARPNESS, 1e9)


def cases(inputs: Inputs) -> Iterator[Case]:
    shape = (512 if inputs.gpu else 32), 64, 32, 32
    reach = {"floor": 0.85} if inputs.gpu else {}
    yield Case("smooth_relu", size(shape), partial(_smooth_relu, inputs, shape), reach, compiles=True)
    yield Case("softplus", size(shape), partial(_softplus, inputs, shape), reach, compiles=True)


def _smooth_relu(inputs: Inputs, shape: tuple[int, ...]) -> Work:
    x, grad = inputs.randn(*shape), inputs.randn(*shape)
    beta = torch.tensor(BETA, device=inputs.device)
    best = partial(smooth_relu_best, x, beta, grad)
    # Forward a read and a write, backward two reads and a write.
    moved = 5 * x.nbytes
    return differentiated(ops.smooth_relu, smooth_relu, best, x, beta, grad=grad, bytes_moved=moved)


def _softplus(inputs: Inputs, shape: tuple[int, ...]) -> Work:
    x, grad = inputs.randn(*shape), inputs.randn(*shape)
    best = partial(softplus_best, x, grad)
    return differentiated(ops.softplus, softplus, best, x, grad=grad, bytes_moved=5 * x.nbytes)


def small(inputs: Inputs) -> Iterator[Call]:
    beta = torch.tensor(2.0, device=inputs.device)
    for shape in SMALL_IMAGES:
        for layout, (x, grad) in layouts(inputs.randn(*shape), inputs.randn(*shape)):
            smooth, plus = leaves(x, beta), leaves(x)
            yield Call(
                f"smooth_relu {size(shape)}{layout}", partial(with_grad, ops.smooth_relu, *smooth, grad=grad)
            )
            yield Call(f"softplus {size(shape)}{layout}", partial(with_grad, ops.softplus, *plus, grad=grad))
