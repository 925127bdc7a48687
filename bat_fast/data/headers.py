"""The first bytes of image files: which of them every decoder reads alike."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_PNG = b"\x89PNG\r\n\x1a\n"
# Chunks that turn an image or make it transparent, or may hold what does.
_PNG_ODD = (b"tRNS", b"eXIf", b"iTXt", b"Raw profile type")
_SOF = range(0xC0, 0xD0)  # frames of JPEG; among them the tables C4, C8 and CC
_TABLES = (0xC4, 0xC8, 0xCC)


def plain_size(path: str | Path) -> tuple[int, int] | None:
    """Height and width of a file that needs none of the rules of `bat_fast.data.pixels.rgb`.

    That is JPEG of 8 bits in one or three channels, not turned by EXIF, and PNG of 8 bits, grey or coloured,
    neither transparent nor turned: what DALI and Pillow decode to the same bytes. None for everything else,
    in doubt too, and for files that cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(26)
            if start.startswith(b"\xff\xd8\xff"):
                return _jpeg(file)
            if start.startswith(_PNG):
                return _png(start + file.read())
    except (OSError, IndexError):
        pass
    return None


def _png(content: bytes) -> tuple[int, int] | None:
    depth, colour = content[24], content[25]
    if depth != 8 or colour not in (0, 2) or any(word in content for word in _PNG_ODD):
        return None
    return int.from_bytes(content[20:24]), int.from_bytes(content[16:20])


def _jpeg(file: BinaryIO) -> tuple[int, int] | None:
    """Walks the segments up to the frame."""
    place, is_rgb = 2, False
    while True:
        file.seek(place)
        head = file.read(4)
        marker, length = head[1], int.from_bytes(head[2:4])
        if head[0] != 0xFF or length < 2:
            return None
        place += 2 + length
        if marker in _SOF and marker not in _TABLES:
            frame = file.read(length - 2)
            channels, names = frame[5], frame[6::3]
            # Sequential or progressive Huffman codes; channels named R, G, B are left to the careful reader.
            odd = marker > 0xC2 or frame[0] != 8 or channels not in (1, 3) or names == b"RGB"
            height, width = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
            return None if odd or not height or (is_rgb and channels == 3) else (height, width)
        if marker == 0xE1 and _turned(file.read(length - 2)):
            return None
        if marker == 0xEE:  # of Adobe: which colours the channels are
            body = file.read(length - 2)
            is_rgb = body.startswith(b"Adobe") and body[11] == 0
        if marker in (0xD9, 0xDA):
            return None


def _turned(segment: bytes) -> bool:
    """Whether EXIF or XMP turns the image."""
    if not segment.startswith(b"Exif\0\0"):
        return b"Orientation" in segment
    from PIL import Image

    exif = Image.Exif()
    try:
        exif.load(segment)
        return exif.get(0x0112, 1) != 1
    except Exception:  # damaged: Pillow decides
        return True
