"""What is asked of files that are read back: checksums inside them, so that no crash can part the two.

Standard library only. Files of older versions have none and are taken as they are.
"""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path
from typing import Any

KEY = "sha256_of_the_rest"
_LINE = "# sha256 of the lines above: "


def digest(*parts: Any) -> str:
    """SHA-256 of what the ``parts``, bytes or whatever has a buffer of them, make together."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def check_regular(path: Path) -> None:
    """Raise ValueError where ``path`` is no ordinary file: reading a pipe or a device may never end.

    Raises:
        FileNotFoundError: it is not there.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "folder" if stat.S_ISDIR(mode) else "pipe" if stat.S_ISFIFO(mode) else "device or socket"
        raise ValueError(f"{path} is a {kind}, and no file: give the path of the file itself")


def sealed_text(text: str) -> str:
    """``text``, which ends in a line end, and a comment with its checksum."""
    return f"{text}{_LINE}{digest(text.encode())}\n"


def check_text(path: Path) -> None:
    """Raise ValueError where `sealed_text` has written a file and its lines have changed since."""
    check_regular(path)
    above, line, found = path.read_bytes().rpartition(_LINE.encode())
    if line and found.strip() != digest(above).encode():
        raise ValueError(
            f"{path} has changed since the run wrote it: put an intact copy in its place, or give what shall "
            "be different as options; if it is right as it is, delete its last line"
        )


def sealed(tree: dict[str, Any]) -> dict[str, Any]:
    """``tree``, which JSON can hold, with its checksum."""
    return tree | {KEY: _of(tree)}


def is_whole(tree: Any) -> bool:
    """Whether ``tree``, read from JSON, is as `sealed` has left it."""
    if not isinstance(tree, dict):
        return False
    return tree.get(KEY) == _of({name: value for name, value in tree.items() if name != KEY})


def _of(tree: dict[str, Any]) -> str:
    return digest(json.dumps(tree, sort_keys=True).encode())
