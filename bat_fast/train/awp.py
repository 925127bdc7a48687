"""Adversarial weight perturbation, AWP (Wu et al. 2020, arXiv:2004.05884), and MLCAT-WP (Yu et al. 2022,
arXiv:2206.08675)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast.attacks import kept_buffers
from bat_fast.config import OptimConfig
from bat_fast.methods import Terms


@contextmanager
def perturbed(
    model: nn.Module,
    losses: Callable[[], Iterable[Tensor]],
    optim: OptimConfig,
    add_up: Callable[[Iterable[Tensor]], None] = lambda gradients: None,
) -> Iterator[None]:
    """Inside, the weights stand at a nearby point of higher loss; the gradient and the step are taken there.

    Each weight w of more than one dimension moves by ``awp ||w|| g / ||g||``, with ``g`` the gradient of
    the sum of ``losses()``, taken one by one; afterwards the same displacement is taken back, so that what
    remains is the optimiser's step. With ``awp_steps`` above 1, g is a sum of gradients: the first at the
    weights, each further one where the sum so far puts them. With ``awp_norm: model`` both norms are those
    of all such weights together.
    Running statistics do not see the passes that find ``g``, whose sum over all processes ``add_up`` puts in
    its place: with those of one process alone each would move its weights another way.
    """
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    weights: list[Tensor] = [weight for weight in learning if weight.dim() > 1]
    total: tuple[Tensor, ...] = ()
    moves: list[Tensor] = []
    for _ in range(optim.awp_steps):
        gradients: tuple[Tensor, ...] = ()
        with kept_buffers(model), _moved(weights, moves) if moves else nullcontext():
            for loss in losses():
                found = torch.autograd.grad(loss, weights, materialize_grads=True)  # 0 for what is not used
                gradients = torch._foreach_add(gradients, found) if gradients else found
        add_up(gradients)
        total = torch._foreach_add(total, gradients) if total else gradients
        with torch.no_grad():
            moves = _moves(weights, total, optim)
    with torch.no_grad():
        torch._foreach_add_(weights, moves)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_sub_(weights, moves)


@contextmanager
def _moved(weights: list[Tensor], moves: list[Tensor]) -> Iterator[None]:
    """Inside, ``weights`` are displaced by ``moves``; afterwards they have their bits again."""
    before = [weight.detach().clone() for weight in weights]
    try:
        with torch.no_grad():
            torch._foreach_add_(weights, moves)
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(weights, before)


def _moves(weights: Sequence[Tensor], gradients: Sequence[Tensor], optim: OptimConfig) -> list[Tensor]:
    """The displacement of each weight along ``gradients``."""
    sizes, slopes = ([value.norm() for value in values] for values in (weights, gradients))
    if optim.awp_norm == "model":
        sizes, slopes = ([torch.stack(norms).norm()] * len(norms) for norms in (sizes, slopes))
    moves = [
        optim.awp * size / (slope + 1e-20) * g
        for size, slope, g in zip(sizes, slopes, gradients, strict=True)
    ]
    for move in moves:  # what is not finite could not be taken back
        move.nan_to_num_(0.0, 0.0, 0.0)
    return moves


def small_losses(terms: Terms, target: Tensor, below: float) -> Tensor:
    """The mean over a batch of the cross-entropies under ``below``, those above counting as 0.

    Args:
        terms: of the method; its ``logits`` [N, C] are what is compared with the classes.
        target: [N] classes.
        below: in nats, > 0.

    Raises:
        TypeError: the method does not say which logits it fits.
    """
    if terms.logits is None:
        raise TypeError(
            "optim.awp_below: the method does not say which logits it fits; return Terms(logits=...), or do "
            "without"
        )
    losses = F.cross_entropy(terms.logits, target, reduction="none")
    return (losses * (losses.detach() < below)).mean()
