"""The arrays of an ``.npz`` file from anywhere: read without running code, and no larger than they may be."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from bat_fast._seal import check_regular


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file.

    A few kilobytes may be the packed form of terabytes, and a header may name any shape: what does not fit
    into the memory of this machine is not begun.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no ordinary file, damaged, too large, or holds objects.
    """
    check_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
        if size > memory():
            raise ValueError(f"its arrays have {size / 2**30:,.0f} GiB, more than the memory of this machine")
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except MemoryError:
        raise ValueError(f"{path} cannot be read: an array says that it is larger than the file") from None
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from None


def memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
