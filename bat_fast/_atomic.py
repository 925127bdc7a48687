"""Files that are either the old version or the new one, whatever happens in between."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_FULL = (errno.ENOSPC, errno.EDQUOT)
_CURES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room: your quota is used up",
    errno.ENOENT: "make the folder first",
    errno.EEXIST: "it is a file and has to be a folder: remove it, or give another place",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f), or write to another file system",
}


class UnwritableError(OSError):
    """A file or a folder cannot be written: the message names it, why, and what helps."""


@contextmanager
def writing(path: Path, cure: str = "give a place where you may write") -> Iterator[None]:
    """What the system refuses inside ``with`` becomes an `UnwritableError` about ``path``.

    So does what a library makes of that refusal: torch's writer of zip files speaks of positions then.

    Args:
        path: what is written inside.
        cure: what helps where neither room nor a limit is the cause.
    """
    before = sys.exception()
    try:
        yield
    except (UnwritableError, BlockingIOError):
        raise  # they say themselves what is in the way
    except Exception as error:
        cause = _refusal(error, before)
        if cause is None or cause.errno is None:  # without a number it is an error of our own
            raise
        why = cause.strerror or str(cause)
        if cause.errno in _FULL and path.parent.is_dir():
            why += f", with {shutil.disk_usage(path.parent).free / 1e6:.1f} MB free"
        kept = "; what was there before is kept" if path.is_file() else ""
        cure = _CURES.get(cause.errno or 0, cure)
        named = UnwritableError(f"{path} cannot be written: {why}{kept}; {cure}")
        named.errno = cause.errno
        raise named from error


def _refusal(error: BaseException | None, before: BaseException | None) -> OSError | None:
    """The error of the system that ``error`` is, or came out of; what was handled ``before`` is not it."""
    while error is not None and error is not before:
        if isinstance(error, OSError):
            return error
        if isinstance(error, (ValueError, TypeError, LookupError)):
            return None  # about what is written
        error = error.__context__
    return None


def atomic_write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Replace ``path`` by what ``write`` puts into the file object it is given.

    The bytes go to a temporary file of the same folder, reach the disk, and only then take the name.
    The folder is synchronised too, so that the new name survives a power cut.

    Raises:
        UnwritableError: the system refuses, for want of room say; ``path`` is what it was.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")  # of this call alone
    with writing(path):
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
    with writing(target):
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
