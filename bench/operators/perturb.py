"""The steps of projected gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from bat_fast import ops
from bat_fast.measure.peers import written_step
from operators import IMAGES, SMALL_IMAGES, Call, Case, Inputs, Work, layouts, size

EPS, STEP, L2_EPS = 8 / 255, 2 / 255, 0.5


def linf_step_best(adv: Tensor, grad: Tensor, low: Tensor, high: Tensor, step: float) -> Tensor:
    """``low`` and ``high`` bound the ball and the pixels, once for the whole attack."""
    return adv.add_(grad.sign_(), alpha=step).clamp_(low, high)


def _length(t: Tensor) -> Tensor:
    return torch.linalg.vector_norm(t.flatten(1), dim=1).view(-1, *[1] * (t.dim() - 1))


def l2_step(adv: Tensor, grad: Tensor, clean: Tensor, step: float, eps: float) -> Tensor:
    moved = adv + step * grad / (_length(grad) + 1e-10)
    delta = moved - clean
    return (clean + delta * (eps / _length(delta)).clamp(max=1.0)).clamp(0, 1)


def l2_step_best(adv: Tensor, grad: Tensor, clean: Tensor, work: Tensor, step: float, eps: float) -> Tensor:
    adv.addcmul_(grad, step / (_length(grad) + 1e-10))
    torch.sub(adv, clean, out=work)
    work.mul_((eps / _length(work)).clamp_(max=1.0))
    return torch.add(clean, work, out=adv).clamp_(0, 1)


def cases(inputs: Inputs) -> Iterator[Case]:
    reach = {} if inputs.gpu else {"floor": 1 / 1.15}
    for shape in IMAGES[inputs.device]:
        if inputs.gpu and shape == IMAGES["cuda"][-1]:
            reach = {"floor": 0.85}
        yield Case("linf_step_", size(shape), partial(_linf, inputs, shape), reach, compiles=True)
        yield Case("l2_step_", size(shape), partial(_l2, inputs, shape), reach if inputs.gpu else {})
    if not inputs.gpu:
        shape = 64, 3, 224, 224
        yield Case("linf_step_", size(shape), partial(_linf, inputs, shape), reach, compiles=True)


def _linf(inputs: Inputs, shape: tuple[int, ...]) -> Work:
    adv, grad, clean = _images(inputs, shape)
    low, high = (clean - EPS).clamp_(0, 1), (clean + EPS).clamp_(0, 1)
    best = partial(linf_step_best, adv, grad, low, high, STEP)
    return _step(ops.linf_step_, written_step, best, adv, grad, clean, EPS)


def _l2(inputs: Inputs, shape: tuple[int, ...]) -> Work:
    adv, grad, clean = _images(inputs, shape)
    best = partial(l2_step_best, adv, grad, clean, torch.empty_like(adv), STEP, L2_EPS)
    return _step(ops.l2_step_, l2_step, best, adv, grad, clean, L2_EPS)


def _images(inputs: Inputs, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Images in the middle of an attack, a gradient, and the clean images."""
    clean, grad = inputs.rand(*shape), inputs.randn(*shape)
    return (clean + 0.5 * EPS * inputs.randn(*shape).clamp(-1, 1)).clamp(0, 1), grad, clean


def _step(
    native: Callable[..., Tensor],
    plain: Callable[..., Tensor],
    best: partial[Tensor],
    adv: Tensor,
    grad: Tensor,
    clean: Tensor,
    eps: float,
) -> Work:
    start, slope = adv.clone(), grad.clone()
    return Work(
        native=lambda: native(adv, grad, clean, step_size=STEP, eps=eps),
        eager=lambda: plain(adv, grad, clean, STEP, eps),
        best=best,
        exact=lambda: plain(start.double(), slope.double(), clean.double(), STEP, eps),
        restore=lambda: (adv.copy_(start), grad.copy_(slope)),
        bytes_moved=4 * adv.nbytes,
    )


def small(inputs: Inputs) -> Iterator[Call]:
    for shape in SMALL_IMAGES:
        for layout, (clean, grad) in layouts(inputs.rand(*shape), inputs.randn(*shape)):
            linf = partial(_moved, ops.linf_step_, clean, grad, step_size=0.02, eps=0.05)
            yield Call(f"linf_step_ {size(shape)}{layout}", linf, same_bits=True)
            l2 = partial(_moved, ops.l2_step_, clean, grad, step_size=0.2, eps=0.5)
            yield Call(f"l2_step_ {size(shape)}{layout}", l2)


def _moved(step: Callable[..., Tensor], clean: Tensor, grad: Tensor, **how: float) -> Tensor:
    return step(clean.clone(), grad, clean, **how)
