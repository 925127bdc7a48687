"""A checkpoint: everything that a training run needs to go on."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from bat_fast._atomic import atomic_write
from bat_fast._seal import check_regular


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, containers of them) atomically to ``path``."""
    atomic_write(path, lambda file: torch.save(state, file))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU. Runs no code from the file (``weights_only``).

    torch writes a CRC of every part and does not look at it; here all of them are compared first.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, damaged or not a checkpoint.
    """
    check_regular(path)
    with path.open("rb") as file:
        try:
            check_parts(file)
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # of many kinds: a changed bit may lead either reader anywhere
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise ValueError(
                f"{path} is not a complete checkpoint ({reason}); put an intact copy in its place"
            ) from error
    if not isinstance(state, dict) or "epoch" not in state:
        raise ValueError(f"{path} is not a checkpoint of bat_fast")
    return state


def check_parts(file: BinaryIO) -> None:
    """Raise an exception of some kind where a part of a zip file, as torch writes them, is not its CRC's."""
    end = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as parts:
        whole = parts.infolist()
        # torch packs without compression: what would grow is of somebody else, and may grow without end.
        if (
            any(part.compress_type != zipfile.ZIP_STORED for part in whole)
            or sum(p.file_size for p in whole) > end
        ):
            raise ValueError("it is a compressed archive, which torch does not write")
        damaged = parts.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} is wrong")
    file.seek(0)
