"""One image file, as a run would see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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
        ValueError: the file is missing, a folder, truncated, no image, or not of the size; the message
            names it.
    """
    return _read(path, size, exact, channels)[0]


def load_fitting(path: str | Path, size: int, *, channels: int = 3) -> tuple[Tensor, bool]:
    """As `load_image`, ``exact`` where the image has that size; and whether it has. It is opened once."""
    return _read(path, size, None, channels)


def _read(path: str | Path, size: int, exact: bool | None, channels: int) -> tuple[Tensor, bool]:
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the images in it, such as {path}/*")
    files = Files(path.parent, [path.name], size, bool(exact))
    try:
        image = files.image(0)
        fits = bool(image.size == (size, size))
        if exact is None:
            files = replace(files, exact=fits)
        pixels = files.fitted(0, image).permute(2, 0, 1).float() / 255
    except ValueError as error:
        raise ValueError(f"{error}; give another file, or leave it out") from None
    if channels == 1:
        pixels = (pixels * torch.tensor(_GREY)[:, None, None]).sum(0, keepdim=True)
    return pixels.contiguous(), fits


def crops(name: str, options: Mapping[str, Any] = MappingProxyType({})) -> bool:
    """Whether the files of data set ``name`` are cropped and resized; the others have one size.

    Args:
        name: of the data set.
        options: those that it is loaded with.

    Raises:
        ValueError: no such data set.
    """
    return getattr(find(name), "CROPS", False) and not options.get("exact", False)
