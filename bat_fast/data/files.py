"""Images that lie in files, and how one of them becomes pixels."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bat_fast.data.headers import plain_size
from bat_fast.data.pixels import rgb

if TYPE_CHECKING:
    from PIL.Image import Image

CENTRE = 224 / 256  # share of the shorter side that a centre crop keeps, the usual one of ImageNet
# What the plugins of Pillow raise for damaged files.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, struct.error)


@dataclass(frozen=True, eq=False)
class Files:
    """Image files that decode to [3, size, size] uint8, by the rule of `bat_fast.data.pixels.rgb`.

    Args:
        root: the folder that ``names`` start from.
        names: the files, relative to it.
        size: height and width of the decoded images.
        exact: the files have that size already, and another one is an error; otherwise they are resized
            and cropped.
    """

    root: Path
    names: Sequence[str]
    size: int
    exact: bool = True

    def __len__(self) -> int:
        return len(self.names)

    def path(self, row: int) -> str:
        """The file of a row."""
        return f"{self.root}/{self.names[row]}"

    @property
    def on_disk(self) -> bool:
        """Whether `path` is a file that another decoder can open."""
        return True

    def plain_size(self, row: int) -> tuple[int, int] | None:
        """Height and width of a file that every decoder reads alike, None for others (`headers`)."""
        return plain_size(self.path(row))

    def open(self, row: int) -> str | BinaryIO:
        """What Pillow opens for a row."""
        return self.path(row)

    def decode(self, row: int, window: Sequence[float] | None = None) -> Tensor:
        """The image of a row, [size, size, 3] uint8.

        Args:
            row: which file.
            window: four numbers in [0, 1) that place a random crop (`crop_of`); None takes the centre.

        Raises:
            ValueError: the file is missing, truncated, no image, or not of the size; the message names it.
        """
        return self.fitted(row, self.image(row), window)

    def image(self, row: int) -> Image:
        """The image of a row in three colours, of whatever size; errors as of `decode`."""
        from PIL import Image as Pillow

        try:
            with Pillow.open(self.open(row)) as file:
                return rgb(file)
        except (*_BROKEN, Pillow.DecompressionBombError) as error:
            reason = "it does not exist" if isinstance(error, FileNotFoundError) else str(error)
            raise ValueError(self.blame(row, reason)) from None

    def fitted(self, row: int, image: Image, window: Sequence[float] | None = None) -> Tensor:
        """What `decode` makes of the ``image`` of a row."""
        from PIL.Image import Resampling

        size = (self.size, self.size)
        if not self.exact:
            top, left, height, width = crop_of(image.height, image.width, window)
            box = (left, top, left + width, top + height)
            # With antialiasing. Cut first: given the box, Pillow would mix in what lies beside it.
            image = image.crop(box).resize(size, Resampling.BILINEAR)
        elif image.size != size:
            raise ValueError(self.blame(row, f"it has {image.width}x{image.height} pixels, not {self.size}"))
        return torch.from_numpy(np.array(image))

    def blame(self, row: int, reason: str) -> str:
        """One line about a file that cannot be used; what to do (`cure`) depends on who asked for it."""
        return f"image {self.path(row)}: {reason}"


def cure(option: str) -> str:
    """What follows the line about a file of a data set, where ``option`` leaves such files out."""
    return f"; restore or delete the file, or leave such files out with {option} skip"


class Crop(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def crop_of(height: int, width: int, window: Sequence[float] | None, least_area: float = 0.08) -> Crop:
    """The part of an image that is resized to the training size.

    Without ``window`` the centre square with `CENTRE` of the shorter side. With it the random crop of
    Szegedy et al. 2015: an area of ``least_area`` to 1 and a log-uniform aspect ratio of 3/4 to 4/3, clipped
    to the image instead of drawn again.

    Args:
        height, width: of the image.
        window: four uniform numbers in [0, 1): area, aspect, top, left.
        least_area: smallest share of the area.
    """
    if window is None:
        side = max(1, _rounded(CENTRE * min(height, width)))
        return Crop((height - side) // 2, (width - side) // 2, side, side)
    area = (least_area + (1 - least_area) * window[0]) * height * width
    aspect = math.exp((2 * window[1] - 1) * math.log(4 / 3))
    w = min(width, max(1, _rounded(math.sqrt(area * aspect))))
    h = min(height, max(1, _rounded(math.sqrt(area / aspect))))
    return Crop(int(window[2] * (height - h + 1)), int(window[3] * (width - w + 1)), h, w)


def _rounded(length: float) -> int:
    """The nearest integer, halves upwards; `round` takes the even one, so that 52.5 and 53.5 differ by 2."""
    return math.floor(length + 0.5)


class Decoding(NamedTuple):
    """Files that are being decoded.

    Args:
        pixels: [N, size, size, 3] uint8; 0 where a file failed.
        failed: place among the files -> why.
        work: ends when all are done.
    """

    pixels: Tensor
    failed: dict[int, str]
    work: Iterator[None]

    def result(self) -> tuple[Tensor, dict[int, str]]:
        """``pixels`` and ``failed``, when all are done."""
        for _ in self.work:
            pass
        return self.pixels, self.failed


def start_decoding(
    files: Files,
    rows: Sequence[int],
    windows: Sequence[Sequence[float]] | None = None,
    pool: ThreadPoolExecutor | None = None,
) -> Decoding:
    """Decode several files: in ``pool`` from now on, without one when the result is asked for.

    Args:
        files: the images.
        rows: which of them, N.
        windows: of `Files.decode`, for each of them.
        pool: threads.
    """
    pixels = torch.zeros((len(rows), files.size, files.size, 3), dtype=torch.uint8)
    failed: dict[int, str] = {}

    def decode(place: int) -> None:
        try:
            pixels[place] = files.decode(rows[place], windows[place] if windows else None)
        except ValueError as error:
            failed[place] = str(error)

    return Decoding(pixels, failed, (pool.map if pool else map)(decode, range(len(rows))))


def decode_rows(
    files: Files,
    rows: Sequence[int],
    windows: Sequence[Sequence[float]] | None = None,
    pool: ThreadPoolExecutor | None = None,
) -> tuple[Tensor, dict[int, str]]:
    """Decode several files; arguments are those of `start_decoding`.

    Returns:
        [N, size, size, 3] uint8, and for every file that failed its place among ``rows`` and the reason; the
        pixels there are 0.
    """
    return start_decoding(files, rows, windows, pool).result()
