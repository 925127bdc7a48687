"""Perturbations: where an attack starts, and how it steps."""

from __future__ import annotations

import torch
from torch import Tensor

from bat_fast._native import check_floating, check_like, check_number, operator, philox


def _fake_step(*_: object) -> None:
    return None


@operator(
    "linf_step_(Tensor(a!) adv, Tensor grad, Tensor clean, float step_size, float eps, float lo, float hi)"
    " -> ()",
    fake=_fake_step,
)
def _linf_step_reference(
    adv: Tensor, grad: Tensor, clean: Tensor, step_size: float, eps: float, lo: float, hi: float
) -> None:
    stepped = adv + step_size * grad.sign().to(adv.dtype)
    adv.copy_(torch.minimum(torch.maximum(stepped, clean - eps), clean + eps).clamp_(lo, hi))


def linf_step_(
    adv: Tensor,
    grad: Tensor,
    clean: Tensor,
    *,
    step_size: float,
    eps: float,
    lo: float = 0.0,
    hi: float = 1.0,
) -> Tensor:
    """One step of linf PGD, in place, with both projections in the same pass over memory.

    ``adv <- clip(clip(adv + step_size * sign(grad), clean - eps, clean + eps), lo, hi)`` with
    ``sign(0) = sign(nan) = 0`` (Madry et al. 2018).

    Args:
        adv: images to move, any shape, float32 or float64 (CUDA: float32, float16, bfloat16).
        grad: gradient of the attack loss; the shape of ``adv``; its dtype, or float16/bfloat16.
        clean: centre of the ball; shape and dtype of ``adv``.
        step_size: step in pixels, >= 0.
        eps: radius in pixels, >= 0.
        lo, hi: range of a pixel, ``lo <= hi``.

    Returns:
        ``adv`` itself.

    Raises:
        ValueError: a shape, device or number does not fit. TypeError: a dtype does not.
    """
    _check_step(adv, grad, clean, step_size, eps, lo, hi)
    torch.ops.bat_fast.linf_step_(adv, grad, clean, step_size, eps, lo, hi)
    return adv


def _check_step(
    adv: Tensor, grad: Tensor, clean: Tensor, step_size: float, eps: float, lo: float, hi: float
) -> None:
    check_number("step_size", step_size, 0.0)
    check_number("eps", eps, 0.0)
    _check_range(lo, hi)
    check_floating("adv", adv)
    check_like("grad", grad, "adv", adv)
    check_like("clean", clean, "adv", adv)
    if clean.dtype != adv.dtype:
        raise TypeError(f"clean must have the dtype of adv, {adv.dtype}, got {clean.dtype}")
    if grad.dtype not in (adv.dtype, torch.float16, torch.bfloat16):
        raise TypeError(f"grad must be {adv.dtype}, float16 or bfloat16, got {grad.dtype}")


def _check_range(lo: float, hi: float) -> None:
    check_number("lo", lo)
    check_number("hi", hi)
    if lo > hi:
        raise ValueError(f"lo must not be above hi, got lo={lo}, hi={hi}")


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
    del norm  # linf is the only one, as random_start checks
    pixels = clean[0].numel() if len(clean) else 0
    sample = index[:, None]
    block = torch.arange((pixels + 3) // 4, device=clean.device)
    words = philox(
        seed, (block, torch.full_like(block, draw), sample & 0xFFFFFFFF, sample >> 32 & 0xFFFFFFFF)
    )
    bits = torch.stack(words, dim=-1).flatten(1)[:, :pixels]  # [N, pixels] 32-bit words
    odd = (bits >> 8) * 2 + 1 - (1 << 24)  # odd integers in (-2^24, 2^24), exact in float32
    # The scale is rounded to the image's dtype first, as every kernel does: CPU = CUDA bit for bit.
    scale = torch.tensor(eps, dtype=torch.float64).to(clean.dtype).item() * 2.0**-24
    noise = (odd.to(clean.dtype) * scale).view(clean.shape)
    return (clean + noise).clamp_(lo, hi)


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

    linf: ``clip(clean + U(-eps, eps), lo, hi)``. The numbers come from a counter-based generator keyed
    by (seed, sample index, draw, pixel): they depend neither on the device, nor on the place of a sample
    in its batch, nor on the memory format, and they are the same bit for bit on CPU and CUDA.

    Args:
        clean: [N, ...] images, float32 or float64 (CUDA: float32, float16, bfloat16).
        eps: radius in pixels, >= 0.
        norm: ``"linf"``.
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
    _check_range(lo, hi)
    check_floating("clean", clean)
    if norm != "linf":
        raise ValueError(f"norm must be 'linf', got {norm!r}")
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
