"""A data set decoded once: one memory-mapped file of bytes, and a description that vouches for it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bat_fast._atomic import atomic_text, sync, writing
from bat_fast._lock import Lock
from bat_fast._seal import is_whole, sealed
from bat_fast.data.contents import Contents as Contents
from bat_fast.data.draft import begun, checks_of
from bat_fast.data.files import cure, decode_rows
from bat_fast.data.source import Source

FOLDER = "bat_fast_cache"
UNKNOWN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # mean and std until they are measured
_CHUNK = 1024  # files between two points to resume from
_FORMAT = 2
_UNSEALED = 1  # the format before, in which neither the description nor single images have checksums
_LEFT_OUT = -1  # the label of a file that could not be decoded


def build_cache(
    contents: Contents,
    folder: Path,
    *,
    workers: int | None = None,
    on_corrupt: str = "error",
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, Any]:
    """Decode all files into ``folder``, which appears as a whole when everything is on the disk.

    A build that was stopped continues where it was, as far as its images are those that were written; one of
    other files starts over. Over a cache that is
    complete nothing is decoded: its pixels are checked against their hash.

    Args:
        contents: of the cache.
        folder: the new folder.
        workers: threads that decode; None takes one for each core.
        on_corrupt: ``"error"``, or ``"skip"`` to leave such files out.
        progress: called with the files done and all files.

    Returns:
        The description that lies in ``meta.json``.

    Raises:
        ValueError: a file cannot be decoded, or the cache there is damaged or of other files.
        BlockingIOError: another process builds it.
    """
    if on_corrupt not in ("error", "skip"):
        raise ValueError(f"on_corrupt must be error or skip, got {on_corrupt!r}")
    mark = contents.fingerprint()
    lock = Lock(folder.with_name(f".{folder.name}.lock"), f"cache {folder}")
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    lock.take()
    try:
        if folder.exists():
            return _verify(folder, mark)
        return _build(contents, folder, mark, workers, on_corrupt, progress)
    finally:
        lock.end()


def _build(
    contents: Contents,
    folder: Path,
    mark: str,
    workers: int | None,
    on_corrupt: str,
    progress: Callable[[int, int], object] | None,
) -> dict[str, Any]:
    total, size = len(contents.files), contents.files.size
    draft = folder.with_name(f"{folder.name}.partial")
    journal, shape = draft / "journal.json", (total, size, size, 3)
    state, checks = begun(draft, mark, shape, _CHUNK)
    if not state["chunks"]:
        shutil.rmtree(draft, ignore_errors=True)
        with writing(draft):
            draft.mkdir(parents=True)
    mode: Any = "r+" if state["chunks"] else "w+"
    with writing(draft / "images.npy"):
        pixels = np.lib.format.open_memmap(draft / "images.npy", mode, np.uint8, shape)
        _reserve(draft / "images.npy")
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for start in range(len(checks), total, _CHUNK):
            rows = range(start, min(start + _CHUNK, total))
            images, failed = decode_rows(contents.files, rows, pool=pool)
            if failed and on_corrupt == "error":
                raise ValueError(next(iter(failed.values())) + cure("--on_corrupt"))
            pixels[rows.start : rows.stop] = images.numpy()
            pixels.flush()
            checks = np.concatenate([checks, checks_of(images.numpy())])
            state["chunks"].append(zlib.crc32(checks[start:].tobytes()))
            state["failed"] |= {str(rows[place]): reason for place, reason in failed.items()}
            atomic_text(journal, json.dumps(sealed(state)))
            if progress is not None:
                progress(rows.stop, total)
    labels, (mean, std) = np.array(contents.labels), contents.stats or UNKNOWN
    labels[[int(row) for row in state["failed"]]] = _LEFT_OUT
    with writing(draft):
        np.save(draft / "labels.npy", labels)
        np.save(draft / "checks.npy", checks)
    meta = {
        "format": _FORMAT,
        "name": contents.name,
        "classes": list(contents.classes),
        "train": contents.train,
        "held": contents.held,
        "exact": contents.files.exact,
        "images": [total, size, size, 3],
        "mean": mean,
        "std": std,
        "fingerprint": mark,
        "sha256": {name: _hash(draft / name) for name in ("images.npy", "labels.npy", "checks.npy")},
        "left_out": sorted(state["failed"].values()),
    }
    if not np.array_equal(checks_of(pixels), checks):  # what is vouched for is what was decoded
        raise ValueError(f"cache {draft}: images.npy changed while it was built; run bat-fast prepare again")
    meta = sealed(meta)
    atomic_text(draft / "meta.json", json.dumps(meta, indent=1))
    journal.unlink()
    for name in ("labels.npy", "checks.npy"):
        sync(draft / name)
    draft.rename(folder)
    sync(folder.parent)
    return meta


def _reserve(file: Path) -> None:
    """Take the room of a mapped file now: on a disk that is full, writing to the map kills the process."""
    with file.open("r+b") as opened:
        os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)


def find_cache(root: Path) -> Path | None:
    """The cache that ``root`` is or holds."""
    for folder in (root, root / FOLDER):
        if (folder / "meta.json").exists():
            return folder
    return None


class Cached(NamedTuple):
    """What lies in a cache.

    Args:
        whole: all samples, memory-mapped.
        train: how many of them are training samples; they come first.
        held: how many are the published validation part; they come next.
        exact: whether the files had the size of the images.
    """

    whole: Source
    train: int
    held: int
    exact: bool


def load_cache(folder: Path) -> Cached:
    """Open a cache.

    Everything is checked against its hash but the pixels, which a loader checks image by image, each when it
    is first read; those of a cache of the format before only ``bat-fast prepare`` checks.

    Raises:
        ValueError: the cache is damaged or of another version.
    """
    meta = _meta(folder)
    for name in meta["sha256"]:
        if name != "images.npy" and _hash(folder / name) != meta["sha256"][name]:
            raise ValueError(_damaged(folder, f"{name} has changed"))
    # Copy on write: torch wants memory that may be written to, and the file stays as it is.
    try:
        store = np.lib.format.open_memmap(folder / "images.npy", "c")
    except ValueError as error:
        raise ValueError(_damaged(folder, str(error))) from None
    if list(store.shape) != meta["images"] or store.dtype != np.uint8:
        raise ValueError(_damaged(folder, f"images.npy is {list(store.shape)} {store.dtype}"))
    labels = torch.from_numpy(np.load(folder / "labels.npy")).long()
    index = (labels != _LEFT_OUT).nonzero().flatten()
    images: Tensor = torch.from_numpy(store).permute(0, 3, 1, 2)
    source = Source(
        images,
        labels[index],
        index,
        len(meta["classes"]),
        meta["name"],
        tuple(meta["classes"]),
        tuple(meta["mean"]),
        tuple(meta["std"]),
        rows=index,
        checks=torch.from_numpy(np.load(folder / "checks.npy").astype(np.int64))
        if meta["format"] != _UNSEALED
        else None,
    )
    train = int((index < meta["train"]).sum())
    held = int((index < meta["train"] + meta.get("held", 0)).sum()) - train
    return Cached(source, train, held, meta.get("exact", True))


def check_fresh(folder: Path, contents: Contents) -> None:
    """Raise ValueError where a cache was built of other files than there are now."""
    if _meta(folder)["fingerprint"] != contents.fingerprint():
        raise ValueError(_damaged(folder, "the files beside it are not those it was built of"))


def _verify(folder: Path, mark: str) -> dict[str, Any]:
    meta = _meta(folder)
    if meta["fingerprint"] != mark:
        raise ValueError(_damaged(folder, "it was built of other files"))
    for name, wanted in meta["sha256"].items():
        if _hash(folder / name) != wanted:
            raise ValueError(_damaged(folder, f"{name} has changed"))
    return meta


def _meta(folder: Path) -> dict[str, Any]:
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_bytes())
        kind = meta["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(_damaged(folder, f"meta.json has changed ({type(error).__name__})")) from None
    if kind not in (_UNSEALED, _FORMAT):
        raise ValueError(_damaged(folder, "another version of bat_fast has built it"))
    if kind != _UNSEALED and not is_whole(meta):
        raise ValueError(_damaged(folder, "meta.json has changed"))
    return meta


def _damaged(folder: Path, why: str) -> str:
    return f"cache {folder}: {why}; delete that folder and run bat-fast prepare again"


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
