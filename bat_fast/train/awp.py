"""Adversarial weight perturbation, AWP (Wu et al. 2020, arXiv:2004.05884)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bat_fast.attacks import kept_buffers


@contextmanager
def perturbed(
    model: nn.Module,
    losses: Iterable[Tensor],
    gamma: float,
    add_up: Callable[[Iterable[Tensor]], None] = lambda gradients: None,
) -> Iterator[None]:
    """Inside, the weights stand at a nearby point of higher loss; the gradient and the step are taken there.

    Each weight of more than one dimension moves by ``gamma ||w|| g / ||g||``, with ``g`` the gradient of
    the sum of ``losses``, taken one by one; afterwards the same displacement is taken back, so that what
    remains is the optimiser's step.
    Running statistics do not see the pass that finds ``g``, whose sum over all processes ``add_up`` puts in
    its place: with those of one process alone each would move its weights another way.
    """
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    weights: list[Tensor] = [weight for weight in learning if weight.dim() > 1]
    gradients: tuple[Tensor, ...] = ()
    with kept_buffers(model):
        for loss in losses:
            found = torch.autograd.grad(loss, weights, materialize_grads=True)  # 0 for what is not used
            gradients = torch._foreach_add(gradients, found) if gradients else found
    add_up(gradients)
    with torch.no_grad():
        moves = [
            gamma * weight.norm() / (g.norm() + 1e-20) * g
            for weight, g in zip(weights, gradients, strict=True)
        ]
        for move in moves:  # what is not finite could not be taken back
            move.nan_to_num_(0.0, 0.0, 0.0)
        torch._foreach_add_(weights, moves)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_sub_(weights, moves)
