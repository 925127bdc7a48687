"""One image file, as a run would see it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from bat_fast.data.files import Files
from bat_fast.data.sets import find

# Of ITU-R BT.601, as Pillow makes grey of colours.
_GREY = (0.299, 0.587, 0.114)


def load_image(path: str | Path, size: int, *, exact: bool = False, channels: int = 3) -> Tensor:
    """An image file as [channels, size, size] float32 in [0, 1], the pixels of validation and test.

    With `crops` of the set that the model was trained with, and its size, these are the very pixels that its
    loaders would give of this file, but for the rounding of `dali` where it resizes.

    Args:
        path: of the file, in any format that Pillow reads (`bat_fast.data.pixels.rgb` has the rules).
        size: height and width.
        exact: the image has that size, and another one is an error; otherwise the centre square with 7/8 of
            the shorter side is resized.
        channels: 3, or 1 for models of grey images: a weighted mean of the three.

    Raises:
        ValueError: the file is missing, truncated, no image, or not of the size; the message names it.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    path = Path(path)
    pixels = Files(path.parent, [path.name], size, exact).decode(0).permute(2, 0, 1).float() / 255
    if channels == 1:
        pixels = (pixels * torch.tensor(_GREY)[:, None, None]).sum(0, keepdim=True)
    return pixels.contiguous()


def crops(name: str, options: Mapping[str, Any] = MappingProxyType({})) -> bool:
    """Whether the files of data set ``name`` are cropped and resized; the others have one size.

    Args:
        name: of the data set.
        options: those that it is loaded with.

    Raises:
        ValueError: no such data set.
    """
    return getattr(find(name), "CROPS", False) and not options.get("exact", False)
