"""What is done to training images. Every random number is keyed by (seed, epoch, sample id)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bat_fast._random import COLOUR, CUTOUT, WINDOW, philox
from bat_fast.config import AugmentConfig
from bat_fast.ops import crop_flip

_GREY = (0.299, 0.587, 0.114)  # of red, green and blue


@dataclass(frozen=True, kw_only=True)
class Augment(AugmentConfig):
    """Augmentation of a loader; the fields are those of `AugmentConfig`, the default is none.

    Raises:
        ValueError: a number is out of range.
    """

    def __post_init__(self) -> None:
        for name in ("pad", "cutout", "rand_augment"):
            if getattr(self, name) < 0:
                raise ValueError(f"data.augment.{name} must be at least 0, got {getattr(self, name)}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"data.augment.jitter must be in [0, 1], got {self.jitter}")
        if self.padding not in ("zero", "reflect"):
            raise ValueError(f"data.augment.padding must be zero or reflect, got {self.padding!r}")

    @property
    def any(self) -> bool:
        """Whether anything is done at all."""
        return self != Augment(padding=self.padding)

    def __call__(
        self,
        images: Tensor,
        rows: Tensor,
        ids: Tensor,
        *,
        seed: int,
        epoch: int,
        channels_last: bool = False,
    ) -> Tensor:
        """Some images of a store as a batch, [N, C, H, W] float32 in [0, 1].

        Args:
            images: [S, H, W, C] uint8, contiguous: the store.
            rows: [N] int64, which of them.
            ids: [N] int64, which key the chance, together with ``seed`` and ``epoch``.
            seed: any 64-bit integer.
            epoch: of the training.
            channels_last: memory format of the batch.
        """
        x = crop_flip(
            images,
            rows,
            pad=self.pad,
            flip=self.flip,
            padding=self.padding,
            seed=seed,
            epoch=epoch,
            sample_ids=ids,
            channels_last=channels_last,
        )
        if self.jitter:
            jitter(x, ids, self.jitter, seed=seed, epoch=epoch)
        return cutout(x, ids, self.cutout, seed=seed, epoch=epoch) if self.cutout else x


def cutout(x: Tensor, ids: Tensor, side: int, *, seed: int, epoch: int) -> Tensor:
    """Set a square of each image to 0, in place; its centre is anywhere.

    Args:
        x: [N, C, H, W].
        ids: [N] int64, which key the chance, together with ``seed`` and ``epoch``.
        side: of the square, in pixels.
    """
    draws = uniform(CUTOUT, ids, seed, epoch)
    hidden = []
    for size, draw in zip(x.shape[2:], draws[:2], strict=True):
        centre = (draw * size).long()[:, None]
        away = torch.arange(size, device=x.device) - centre + side // 2
        hidden.append((away >= 0) & (away < side))
    return x.masked_fill_((hidden[0][:, :, None] & hidden[1][:, None, :])[:, None], 0.0)


def jitter(x: Tensor, ids: Tensor, most: float, *, seed: int, epoch: int) -> Tensor:
    """Change brightness, contrast and saturation of each image, in place and in this order::

        x b;  m + c (x - m), m the mean grey of the image;  g + s (x - g), g the grey of the pixel

    with b, c and s from U(1 - most, 1 + most), cut to [0, 1] at the end. Grey is 0.299 R + 0.587 G + 0.114 B.

    Args:
        x: [N, C, H, W] in [0, 1].
        ids: [N] int64, which key the chance, together with ``seed`` and ``epoch``.
        most: how far a factor goes from 1, in [0, 1].
    """
    factors = [1 + most * (2 * draw - 1) for draw in uniform(COLOUR, ids, seed, epoch)[:3]]
    brightness, contrast, saturation = (factor.view(-1, 1, 1, 1) for factor in factors)
    x *= brightness
    x.lerp_(_grey(x).mean((2, 3), keepdim=True).expand_as(x), 1 - contrast)
    x.lerp_(_grey(x).expand_as(x), 1 - saturation)
    return x.clamp_(0.0, 1.0)


def _grey(x: Tensor) -> Tensor:
    """[N, 1, H, W] of ``x`` [N, C, H, W]."""
    weights = x.new_tensor(_GREY) if x.shape[1] == 3 else x.new_full((x.shape[1],), 1 / x.shape[1])
    return (x * weights.view(1, -1, 1, 1)).sum(1, keepdim=True)


def windows(ids: Tensor, *, seed: int, epoch: int) -> Tensor:
    """Four uniform numbers in [0, 1) for each sample, [N, 4] float32: where `files.crop_of` cuts.

    Args:
        ids: [N] int64, which key the chance, together with ``seed`` and ``epoch``.
    """
    return torch.stack(uniform(WINDOW, ids, seed, epoch), 1)


def uniform(domain: int, ids: Tensor, seed: int, epoch: int) -> list[Tensor]:
    """Four uniform numbers in [0, 1) for each sample, [N] float32 each.

    Args:
        domain: the use, one of the words of `bat_fast._random`: no two uses draw the same numbers.
        ids: [N] int64, which key the chance, together with ``seed`` and ``epoch``.
    """
    mask = 0xFFFFFFFF
    counter = (torch.full_like(ids, domain), torch.full_like(ids, epoch), ids & mask, ids >> 32 & mask)
    return [(word >> 8).float() * 2**-24 for word in philox(seed, counter)]
