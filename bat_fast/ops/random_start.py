"""Random starts: where an attack begins."""

from __future__ import annotations

import torch
from torch import Tensor

from bat_fast._checks import check_floating, check_number, check_range
from bat_fast._native import operator
from bat_fast._random import philox

__all__ = ["random_start"]


def _fake_start(clean: Tensor, *_: object) -> Tensor:
    return torch.empty_like(clean)


@operator(
    "random_start(Tensor clean, Tensor index, float eps, str norm, int seed, int draw, float lo, float hi)"
    " -> Tensor",
    fake=_fake_start,
)
def _random_start_reference(
    clean: Tensor, index: Tensor, eps: float, norm: str, seed: int, draw: int, lo: float, hi: float
) -> Tensor:
    pixels = clean[0].numel() if len(clean) else 0
    blocks = (pixels + 3) // 4
    words = _words(index, torch.arange(blocks + 1, device=clean.device), seed, draw)  # [N, 4 (blocks + 1)]
    bits = words[:, :pixels]
    if norm != "linf":
        unit = (words >> 8).to(clean.dtype) * 2.0**-24
        radius = (-2 * (unit[:, 0::2] + 2.0**-24).log()).sqrt()
        angle = 2 * torch.pi * unit[:, 1::2]
        normal = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1).flatten(1)[:, :pixels]
        if norm == "l2":
            normal = normal * (unit[:, 4 * blocks, None] / normal.norm(dim=1, keepdim=True))
        return (clean + eps * normal.view(clean.shape)).clamp_(lo, hi)
    odd = (bits >> 8) * 2 + 1 - (1 << 24)  # odd integers in (-2^24, 2^24), exact in float32
    # The scale is rounded to the image's dtype first, as every kernel does: CPU = CUDA bit for bit.
    scale = torch.tensor(eps, dtype=torch.float64).to(clean.dtype).item() * 2.0**-24
    noise = (odd.to(clean.dtype) * scale).view(clean.shape)
    return (clean + noise).clamp_(lo, hi)


def _words(index: Tensor, block: Tensor, seed: int, draw: int) -> Tensor:
    """The four words of each Philox block of each sample, [N, 4 * blocks] int64."""
    sample = index[:, None]
    low, high = sample & 0xFFFFFFFF, sample >> 32 & 0xFFFFFFFF
    return torch.stack(philox(seed, (block, torch.full_like(block, draw), low, high)), dim=-1).flatten(1)


def random_start(
    clean: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    seed: int = 0,
    index: Tensor | None = None,
    draw: int = 0,
    lo: float = 0.0,
    hi: float = 1.0,
) -> Tensor:
    """A random point of the ball around each image, cut to [lo, hi].

    - ``linf``: ``clip(clean + U(-eps, eps), lo, hi)``;
    - ``l2``: ``clip(clean + eps u n / ||n||_2, lo, hi)`` with ``n`` normal and ``u ~ U(0, 1)``;
    - ``gaussian``: ``clip(clean + eps n, lo, hi)``, the start of TRADES with ``eps = 0.001``.

    The numbers come from a counter-based generator keyed
    by (seed, sample index, draw, pixel): they depend neither on the device, nor on the place of a sample
    in its batch, nor on the memory format, and for linf they are the same bit for bit on CPU and
    CUDA.

    Args:
        clean: [N, ...] images, float32 or float64 (CUDA: float32, float16, bfloat16).
        eps: radius (gaussian: standard deviation) in pixels, >= 0.
        norm: one of the names above.
        seed: any 64-bit integer.
        index: [N] int64 data set ids; None numbers the samples of the batch from 0.
        draw: which start of the sample, 0 <= draw < 2^32: an epoch, or a restart.
        lo, hi: range of a pixel.

    Returns:
        A new tensor with the shape, dtype and memory format of ``clean``.

    Raises:
        ValueError: a shape, device or number does not fit. TypeError: a dtype does not.
    """
    check_number("eps", eps, 0.0)
    check_range(lo, hi)
    check_floating("clean", clean)
    if norm not in ("linf", "l2", "gaussian"):
        raise ValueError(f"norm must be linf, l2 or gaussian, got {norm!r}")
    if clean.dim() < 1:
        raise ValueError("clean must be a batch [N, ...], got a scalar")
    if not 0 <= draw < 1 << 32:
        raise ValueError(f"draw must be in [0, 2^32), got {draw}")
    if not -(1 << 63) <= seed < 1 << 63:
        raise ValueError(f"seed must fit 64 bits, got {seed}")
    if index is None:
        index = torch.arange(len(clean), device=clean.device)
    if index.dtype != torch.int64:
        raise TypeError(f"index must be int64, got {index.dtype}")
    if index.shape != clean.shape[:1]:
        raise ValueError(f"index must be [N] = [{len(clean)}], got {list(index.shape)}")
    if index.device != clean.device:
        raise ValueError(f"index is on {index.device}, clean on {clean.device}: move one of them")
    return torch.ops.bat_fast.random_start(clean, index, eps, norm, seed, draw, lo, hi)
