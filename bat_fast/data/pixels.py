"""The one rule by which the image of a file becomes red, green and blue bytes, whoever asks for it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

BACKGROUND = (255, 255, 255)  # what shows through transparent pixels
_ORIENTATION = 0x0112  # the number of this tag in EXIF
# Formats whose names Pillow knows and whose pixels it cannot read, or only with another program.
_NOT_READ = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}


@cache
def suffixes() -> tuple[str, ...]:
    """The file names' ends, with the dot and in lower case, of every format that Pillow reads here."""
    from PIL import Image

    known = Image.registered_extensions()  # loads all plugins
    return tuple(sorted(end for end, kind in known.items() if kind in Image.OPEN and kind not in _NOT_READ))


def rgb(image: Image.Image) -> Image.Image:
    """An opened image in mode RGB, by one rule for every loader.

    - The first frame or page.
    - Turned and mirrored as its EXIF orientation says.
    - 16-bit grey levels divided by 257 and rounded; floats in [0, 1] times 255. Of 16-bit colours Pillow
      gives the high byte.
    - Transparent pixels over `BACKGROUND`, in proportion to their alpha.
    - Palette, CMYK and YCbCr converted without a colour profile; grey becomes three equal channels.

    Raises:
        ValueError: levels of no known scale. Whatever else Pillow raises for damaged files.
    """
    from PIL import Image

    image.load()  # TIFF is turned here, and PNG may have its EXIF behind the pixels
    turn = _turn(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_bytes(np.asarray(image)))
    if turn is not None:
        image = image.transpose(turn)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*BACKGROUND, 255)), image)
    return image.convert("RGB")


def _turn(image: Image.Image) -> Image.Transpose | None:
    from PIL import Image

    try:
        said = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF raises anything, and the pixels are whole
        return None
    way = Image.Transpose
    return {
        2: way.FLIP_LEFT_RIGHT,
        3: way.ROTATE_180,
        4: way.FLIP_TOP_BOTTOM,
        5: way.TRANSPOSE,
        6: way.ROTATE_270,
        7: way.TRANSVERSE,
        8: way.ROTATE_90,
    }.get(said)


def _bytes(levels: np.ndarray) -> np.ndarray:
    """Grey levels [H, W] of more than 8 bits as uint8."""
    low, high = levels.min(), levels.max()
    if levels.dtype.kind == "f":
        if not (low >= 0 and high <= 1):
            raise ValueError(f"its pixels are floats in [{low:.4g}, {high:.4g}], not in [0, 1]")
        return np.floor(levels * 255.0 + 0.5).astype(np.uint8)
    if low < 0 or high > 65535:
        raise ValueError(f"its pixels are integers in [{low}, {high}], more than 16 bits")
    return ((levels.astype(np.int64) + 128) // 257).astype(np.uint8)
