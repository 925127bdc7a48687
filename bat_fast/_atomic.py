"""Files that are either the old version or the new one, whatever happens in between."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def atomic_write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Replace ``path`` by what ``write`` puts into the file object it is given.

    The bytes go to a temporary file of the same folder, reach the disk, and only then take the name.
    The folder is synchronised too, so that the new name survives a power cut.
    """
    draft = path.with_name(f".{path.name}.tmp")
    try:
        with draft.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)  # noqa: PTH105 - the name of the system call that is atomic
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync(path.parent)


def atomic_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text``."""
    atomic_write(path, lambda file: file.write(text.encode()))


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
