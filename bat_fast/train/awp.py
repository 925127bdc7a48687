"""Adversarial weight perturbation, AWP (Wu et al. 2020, arXiv:2004.05884)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def perturbed(model: nn.Module, loss: Callable[[], Tensor], gamma: float) -> Iterator[None]:
    """Inside, the weights stand at a nearby point of higher loss; the gradient and the step are taken there.

    Each weight of more than one dimension moves by ``gamma ||w|| g / ||g||``, with ``g`` the gradient of
    ``loss``; afterwards the same displacement is taken back, so that what remains is the optimiser's step.
    Running statistics do not see the pass that finds ``g``.
    """
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    weights: list[Tensor] = [weight for weight in learning if weight.dim() > 1]
    with torch.no_grad():
        buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gradients = torch.autograd.grad(loss(), weights, allow_unused=True)
    with torch.no_grad():
        for buffer, value in buffers:
            buffer.copy_(value)
        moves = [
            torch.zeros_like(weight) if g is None else gamma * weight.norm() / (g.norm() + 1e-20) * g
            for weight, g in zip(weights, gradients, strict=True)
        ]
        torch._foreach_add_(weights, moves)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_sub_(weights, moves)
