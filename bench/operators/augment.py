"""Random crops and flips of images that lie in memory as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bat_fast import ops
from bat_fast.ops.augment import _draw
from operators import SMALL_IMAGES, Call, Case, Inputs, Work, size

PAD, SAMPLES, SIDE = 4, 4096, 64


def gather_crop(images: Tensor, index: Tensor, corners: Tensor, mirrored: Tensor, size: int) -> Tensor:
    """Crops of padded images [M, C, H, W] by one batched gather."""
    lines = torch.arange(size, device=images.device)
    rows, columns = corners[:, :1] + lines, corners[:, 1:] + lines
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    channels = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    crop = images[index[:, None, None, None], channels, rows[:, None, :, None], columns[:, None, None, :]]
    return crop.float() / 255


def slice_crop(images: Tensor, places: list[tuple[int, int, int, bool]], work: Tensor, out: Tensor) -> Tensor:
    """Crops as of `gather_crop`, by one slice for each image, into reused buffers."""
    size = out.shape[-1]
    for batch_row, (image, row, column, flip) in zip(work, places, strict=True):
        crop = images[image, :, row : row + size, column : column + size]
        batch_row.copy_(crop.flip(2) if flip else crop)
    return torch.div(work, 255, out=out)


def cases(inputs: Inputs) -> Iterator[Case]:
    n, reach = (512, {"floor": 0.85}) if inputs.gpu else (128, {"best": 3.0})
    yield Case("crop_flip", size((n, SIDE, SIDE)), partial(_crop, inputs, n), reach)


def _crop(inputs: Inputs, n: int) -> Work:
    images = inputs.integers(256, SAMPLES, SIDE, SIDE, 3, dtype=torch.uint8)
    padded = F.pad(images.permute(0, 3, 1, 2), (PAD,) * 4).contiguous()
    index = torch.randperm(SAMPLES, device=inputs.device)[:n]
    rule: dict[str, Any] = {"pad": PAD, "seed": 1, "epoch": 2}
    shape = n, 3, SIDE, SIDE
    out, work = (torch.empty(shape, device=inputs.device, dtype=t) for t in (torch.float32, torch.uint8))
    row, column, mirrored = _draw(index, PAD, 1, 2, True)
    corners = torch.stack([row, column], dim=1) + PAD
    places = list(zip(*(t.tolist() for t in (index, row + PAD, column + PAD, mirrored)), strict=True))
    return Work(
        native=lambda: ops.crop_flip(images, index, out=out, **rule),
        eager=lambda: gather_crop(padded, index, corners, mirrored, SIDE),
        best=partial(slice_crop, padded, places, work, out),
        exact=lambda: gather_crop(padded, index, corners, mirrored, SIDE),
        bytes_moved=5 * out.numel(),
    )


def small(inputs: Inputs) -> Iterator[Call]:
    for _, channels, height, width in SMALL_IMAGES:
        images = inputs.integers(256, 7, height, width, channels, dtype=torch.uint8)
        index = inputs.integers(7, 4)
        for last in (False, True):
            run = partial(ops.crop_flip, images, index, pad=2, seed=5, epoch=1, channels_last=last)
            words = f"crop_flip {size((height, width))}{' channels_last' if last else ''}"
            yield Call(words, run, same_bits=True)
