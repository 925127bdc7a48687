"""Files that are either the old version or the new one, whatever happens in between."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def atomic_write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Replace ``path`` by what ``write`` puts into the file object it is given.

    The bytes go to a temporary file of the same folder, reach the disk, and only then take the name.
    The folder is synchronised too, so that the new name survives a power cut.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")  # of this call alone
    try:
        with draft.open("xb") as file:  # made here: a link that lies in wait is not followed
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


def atomic_copy(source: Path, target: Path) -> None:
    """Let ``target`` be what ``source`` is now, whoever replaces that later: a second name, or a copy."""
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            os.link(source, draft)
        except OSError:  # a file system without links
            shutil.copyfile(source, draft)
            sync(draft)
        os.replace(draft, target)  # noqa: PTH105
    finally:
        draft.unlink(missing_ok=True)  # two names of one file are not exchanged, and the draft stays
    sync(target.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
