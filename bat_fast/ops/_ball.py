"""Images, balls around them, and norms, as the loops of attacks and their references compute with them."""

from __future__ import annotations

from torch import Tensor


def bounds(clean: Tensor, eps: float, lo: float, hi: float) -> tuple[Tensor, Tensor]:
    """The least and the largest value of each pixel in the linf ball around ``clean`` and in [lo, hi]."""
    return (clean - eps).clamp(lo, hi), (clean + eps).clamp(lo, hi)


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """``values`` [N] in the shape that multiplies ``like`` [N, ...]."""
    return values.view(-1, *[1] * (like.dim() - 1))


def length(x: Tensor, norm: str) -> Tensor:
    """The norm [N] of each of ``x`` [N, ...]."""
    flat = x.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.square().sum(1).sqrt()


def unit(x: Tensor, norm: str) -> Tensor:
    """``x`` [N, ...], each image divided by its norm; one of zeros stays."""
    return x / (per_image(length(x, norm), x) + 1e-12)
