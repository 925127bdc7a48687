"""safetensors with a checksum in their metadata, and always in the same order of bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from bat_fast._seal import check_regular, digest

KEY = "sha256"  # of everything else in the file
_MOST = 100_000_000  # bytes of a header that safetensors itself would read
_BLOCK = 1 << 20


def sealed_tensors(content: bytes) -> bytes:
    """What safetensors has written, its header sorted, which is in random order, and with a checksum."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    said = {name: value for name, value in header.pop("__metadata__", {}).items() if name != KEY}
    header |= {"__metadata__": said} if said else {}
    mark = digest(_bytes(header), memoryview(content)[end:])
    header["__metadata__"] = said | {KEY: mark}
    start = _bytes(header)
    start += b" " * (-len(start) % 8)
    return len(start).to_bytes(8, "little") + start + content[end:]


def check_tensors(path: Path) -> None:
    """Raise ValueError where `sealed_tensors` has made a file and a bit of it has changed since.

    So it does where that is no ordinary file. What is no safetensors file, or has no checksum, passes: who
    reads it says what is wrong.
    """
    check_regular(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MOST:
            return
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            return
        more = header.get("__metadata__") if isinstance(header, dict) else None
        mark = more.pop(KEY, None) if isinstance(more, dict) else None
        if mark is None:
            return
        if not more:
            del header["__metadata__"]
        if digest(_bytes(header), *_blocks(file)) != mark:
            raise ValueError(
                f"{path} is damaged: it is not as bat_fast wrote it (sha256); put an intact copy in its place"
            )


def _bytes(header: dict[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block
