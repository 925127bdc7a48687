"""A cache that is being built: what of it can be kept when the build was stopped."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from bat_fast._seal import is_whole


def begun(draft: Path, mark: str, shape: tuple[int, ...], chunk: int) -> tuple[dict[str, Any], np.ndarray]:
    """The journal of a build that was stopped, and a checksum for each image [done] uint32.

    Images that are not what the journal says are decoded again, and so are all after them.

    Args:
        draft: its folder.
        mark: the fingerprint of what it is built of.
        shape: of all images.
        chunk: images between two points to go on from.
    """
    fresh: dict[str, Any] = {"fingerprint": mark, "chunk": chunk, "chunks": [], "failed": {}}
    nothing = np.zeros(0, np.uint32)
    try:
        state = json.loads((draft / "journal.json").read_bytes())
        pixels = np.lib.format.open_memmap(draft / "images.npy", "r")
    except (OSError, ValueError):
        return fresh, nothing
    same = is_whole(state) and all(state.get(name) == fresh[name] for name in ("fingerprint", "chunk"))
    if not same or pixels.shape != shape or pixels.dtype != np.uint8:
        return fresh, nothing
    checks = [nothing]
    for number, wanted in enumerate(state["chunks"]):
        found = checks_of(pixels[number * chunk : (number + 1) * chunk])
        if zlib.crc32(found.tobytes()) != wanted:
            break
        checks.append(found)
    done = np.concatenate(checks)
    fresh["chunks"] = state["chunks"][: len(checks) - 1]
    fresh["failed"] = {row: why for row, why in state["failed"].items() if int(row) < len(done)}
    return fresh, done


def checks_of(images: np.ndarray) -> np.ndarray:
    """CRC-32 of each of the images [N, H, W, 3]."""
    return np.array([zlib.crc32(image.tobytes()) for image in images], np.uint32)
