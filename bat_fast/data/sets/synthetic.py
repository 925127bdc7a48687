"""Natural-looking images with classes, made on the fly, in memory: for benchmarks and first tries."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bat_fast._random import generator
from bat_fast.data.source import Source, Splits, divide, sampled_stats

_CHUNK = 512


def load(seed: int, size: int = 32, classes: int = 10, count: int = 5000) -> Splits:
    """Train on 80 % of ``count`` images, validate on 10 %, test on 10 %.

    Args:
        seed: of images and labels.
        size: height and width in pixels, at least 8.
        classes: number of classes.
        count: images in all, at least ten for each class.

    Raises:
        ValueError: a number is out of range.
    """
    for name, value, least in (("size", size, 8), ("classes", classes, 2), ("count", count, 10 * classes)):
        if value < least:
            raise ValueError(f"data.options.{name} must be at least {least}, got {value}")
    labels = torch.arange(count) % classes
    store = torch.empty((count, size, size, 3), dtype=torch.uint8)
    for rows in torch.arange(count).split(_CHUNK):
        store[rows] = draw_images(labels[rows], rows[0].item(), size, classes, seed)
    images, every = store.permute(0, 3, 1, 2), torch.arange(count)
    test = count // 10
    mean, std = sampled_stats(images, every[: count - test])
    names = tuple(f"class_{label:04}" for label in range(classes))
    whole = Source(images, labels, every, classes, "synthetic", names, mean, std, rows=every)
    return divide(whole, count - test, test, seed)


def draw_images(labels: Tensor, first: object, size: int, classes: int, seed: int) -> Tensor:
    """Draw one image for each label, [N, size, size, 3] uint8.

    Random fields with the 1/f spectrum of photographs; a class has a coarse pattern of its own, at a place
    and with a strength that vary.

    Args:
        labels: [N] int64, 0 <= label < classes.
        first: keys the chance of these images, together with ``seed``.
        size: height and width.
        classes: number of classes.
        seed: of the images and of the patterns.
    """
    chance = generator("synthetic", seed, first)
    patterns = torch.randn((classes, 3, 4, 4), generator=generator("synthetic classes", seed))
    image = torch.zeros((len(labels), 3, size, size))
    cells, amplitude = 2, 1.0
    while cells < size:
        field = torch.randn((len(labels), 3, cells, cells), generator=chance)
        field = 0.6 * field.mean(1, keepdim=True) + 0.4 * field  # colours of a photograph go together
        image += amplitude * F.interpolate(field, size=(size, size), mode="bilinear")
        cells, amplitude = 2 * cells, 0.7 * amplitude
    shift = torch.randint(-size // 8, size // 8 + 1, (len(labels), 2), generator=chance)
    pattern = F.interpolate(patterns[labels], size=(size, size), mode="bilinear")
    strength = 0.5 + torch.rand((len(labels), 1, 1, 1), generator=chance)
    moved = torch.stack([p.roll(tuple(s), (1, 2)) for p, s in zip(pattern, shift.tolist(), strict=True)])
    pixels = 0.45 + 0.14 * (image + 1.2 * strength * moved)
    return pixels.clamp_(0, 1).mul_(255).round_().byte().permute(0, 2, 3, 1).contiguous()
