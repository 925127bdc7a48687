"""The loss around images: on the way to the attacked image, and along signs by chance."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast._logits import logits_of, missed
from bat_fast.batch import Batch
from bat_fast.ops import random_start
from bat_fast.runs.examined import Around, Plane

_AT = torch.linspace(-2, 2, 17)  # in units of the way to the attacked image, or of the radius


def chance(x: Tensor, index: Tensor, eps: float, norm: str, seed: int) -> Tensor:
    """A way by chance from each of ``x`` [N, C, H, W] to the edge of its ball, in the shape of ``x``: ``eps``
    with signs by chance in linf, a direction by chance in l2. ``seed`` and ``index`` [N] alone decide it."""
    signed = random_start(torch.full_like(x, 0.5), eps=0.5, norm="linf", seed=seed, index=index) - 0.5
    if norm == "linf":
        return torch.where(signed > 0, eps, -eps)
    return eps * signed / signed.flatten(1).norm(dim=1).view(-1, *[1] * (x.dim() - 1))


def around(model: nn.Module, batch: Batch, x_adv: Tensor, eps: float, norm: str, seed: int) -> Around:
    """The cross-entropy on both ways, and beyond and behind; pixels stay in [0, 1].

    Args:
        model: in eval mode.
        batch: N images.
        x_adv: [N, C, H, W], what an attack in the ball makes of them.
        eps, norm: of the ball.
        seed: of the way by chance.
    """
    ways = {"attack": x_adv - batch.x, "chance": chance(batch.x, batch.index, eps, norm, seed)}
    losses = {
        name: torch.stack([_loss(model, batch.x + float(t) * way, batch.y)[0] for t in _AT]).cpu()
        for name, way in ways.items()
    }
    return Around(_AT, losses["attack"], losses["chance"], {})


def plane(model: nn.Module, batch: Batch, x_adv: Tensor, eps: float, norm: str, seed: int) -> Plane:
    """The loss in the plane of both ways around a single image; arguments as of `around`, with N = 1."""
    way, other = x_adv - batch.x, chance(batch.x, batch.index, eps, norm, seed)
    at = _AT.to(batch.x).view(-1, 1, 1, 1)
    rows = [_loss(model, batch.x + at * way + float(t) * other, batch.y.expand(len(at))) for t in _AT]
    loss, right = (torch.stack(column).cpu() for column in zip(*rows, strict=True))
    return Plane(loss, right)


@torch.no_grad()
def _loss(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each image, and whether the model is right about it."""
    logits = logits_of(model(x.clamp(0, 1)), len(y)).float()
    return F.cross_entropy(logits, y, reduction="none"), ~missed(logits, y)
