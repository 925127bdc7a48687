"""``.npz`` files with a checksum inside: small, whole or refused, and never a pickle."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from bat_fast._atomic import atomic_write
from bat_fast._seal import digest

_KEY = "sha256_of_the_rest"
Array = np.ndarray[Any, Any]


def write_arrays(path: Path, arrays: dict[str, Array], *, compress: bool = True) -> None:
    """Write ``arrays`` and their checksum to ``path``, as a whole or not at all."""
    content = io.BytesIO()
    save = np.savez_compressed if compress else np.savez
    save(content, **arrays, **{_KEY: np.array(_mark(arrays))})  # type: ignore[arg-type]
    atomic_write(path, lambda file: file.write(content.getvalue()))


def read_arrays(path: Path) -> dict[str, Array]:
    """What `write_arrays` has written.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        mark = str(arrays.pop(_KEY))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, and it is made again") from error
    if mark != _mark(arrays):
        raise ValueError(f"{path} has changed since it was written: delete it, and it is made again")
    return arrays


def _mark(arrays: dict[str, Array]) -> str:
    parts: list[Any] = []
    for name, array in sorted(arrays.items()):
        parts += [f"{name} {array.dtype.str} {array.shape} ".encode(), np.ascontiguousarray(array).tobytes()]
    return digest(*parts)
