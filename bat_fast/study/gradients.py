"""Size and stability of the gradient of the weights (Dong et al. 2021, arXiv:2106.01606, whose programs for
it were not released; a loss along its gradient is looked at by Santurkar et al. 2018, arXiv:1805.11604).

With ``g(w)`` the gradient of a loss of fixed images, which are attacked anew wherever the weights are, and a
unit vector ``v``, either ``-g(w) / || g(w) ||_2`` (where a step goes) or one by chance::

    magnitude     || g(w) ||_2
    stability(d)  cos( g(w), g(w + d v) )
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bat_fast._random import generator


class Stability(NamedTuple):
    """What the gradient does around the weights."""

    magnitude: float
    along: dict[float, float]
    """Distance -> cosine, where a step goes."""
    by_chance: dict[float, float]
    """Distance -> mean cosine over random directions."""


def stability(
    model: nn.Module,
    loss: Callable[[], Tensor],
    distances: Sequence[float],
    *,
    directions: int = 3,
    seed: int = 0,
) -> Stability:
    """Measure a model; its weights are as before afterwards, and it gets no gradients.

    Args:
        model: whose parameters are moved.
        loss: of the model as it is then, a scalar with a graph.
        distances: d, in the unit of the weights.
        directions: how many random ones.
        seed: of these.

    Raises:
        ValueError: the gradient is zero or not finite, and has no direction.
    """
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = nn.utils.parameters_to_vector(weights).detach().clone()

    def gradient() -> Tensor:
        with torch.enable_grad():
            found = torch.autograd.grad(loss(), weights, materialize_grads=True)
        return nn.utils.parameters_to_vector(found).detach()

    def cosine_at(offset: Tensor) -> float:
        nn.utils.vector_to_parameters(before + offset, weights)
        try:
            return float(torch.cosine_similarity(own, gradient(), dim=0))
        finally:
            nn.utils.vector_to_parameters(before, weights)

    own = gradient()
    size = float(own.norm())
    if not 0 < size < float("inf"):
        raise ValueError(f"the gradient of the weights has the norm {size}: it has no direction")
    along = {d: cosine_at(-d / size * own) for d in distances}
    by_chance = dict.fromkeys(distances, 0.0)
    for number in range(directions):
        draw = torch.randn(before.shape, generator=generator("gradient direction", seed, number)).to(before)
        for d in distances:
            by_chance[d] += cosine_at(d / float(draw.norm()) * draw) / directions
    return Stability(size, along, by_chance)
