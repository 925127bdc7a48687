"""The smallest operator, to copy: what is timed of it, and its small calls on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from operators import IMAGES, SMALL_IMAGES, Call, Case, Inputs, Work, differentiated, leaves, size, with_grad
from torch import Tensor

from bat_fast import ops

SCALE = 0.3


def null_scale(x: Tensor) -> Tensor:
    """As a repository would write it."""
    return SCALE * x


def null_scale_best(x: Tensor, grad: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """As an expert would, without autograd."""
    return torch.mul(x, SCALE, out=out), grad * SCALE


def cases(inputs: Inputs) -> Iterator[Case]:
    for shape in IMAGES[inputs.device]:
        yield Case("null_scale", size(shape), partial(_work, inputs, shape))


def _work(inputs: Inputs, shape: tuple[int, ...]) -> Work:
    x, grad = inputs.randn(*shape), inputs.randn(*shape)
    best = partial(null_scale_best, x, grad, torch.empty_like(x))
    native = partial(ops.null_scale, scale=SCALE)
    # Forward and backward, a read and a write each.
    return differentiated(native, null_scale, best, x, grad=grad, bytes_moved=4 * x.nbytes)


def small(inputs: Inputs) -> Iterator[Call]:
    for shape in SMALL_IMAGES:
        x, grad = inputs.randn(*shape), inputs.randn(*shape)
        run = partial(with_grad, partial(ops.null_scale, scale=SCALE), *leaves(x), grad=grad)
        yield Call(f"null_scale {size(shape)}", run, same_bits=True)
