"""Data sets decoded once, ahead of all runs: `bat-fast prepare`."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from bat_fast.data import sets
from bat_fast.data.cache import FOLDER, build_cache
from bat_fast.spelling import meant


def names() -> list[str]:
    """The data sets that can be prepared, with dashes, as the command line has them."""
    return list(_modules())


def prepare(
    name: str,
    path: str | Path,
    *,
    out: str | Path | None = None,
    workers: int | None = None,
    on_corrupt: str = "error",
    size: int | None = None,
    exact: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> str:
    """Build the cache of a data set, or check the one there is; a few lines about it.

    A cache holds what validation sees of an image: the centre, resized. Training sees it too, so that
    ``data.augment.pad`` goes with it and ``data.augment.resized_crop`` does not.

    Args:
        name: one of `names`.
        path: the folder of the data set; nothing in it is changed or moved.
        out: the folder of the cache; None is ``bat_fast_cache`` in ``path``, where training finds it. For
            another one say ``--data.root OUT``.
        workers: threads that decode; None takes one for each core.
        on_corrupt: ``"error"``, or ``"skip"`` to leave such files out.
        size: height and width of the images, for sets that have ``data.options.size``; None is their default.
        exact: the files of an image_folder have that size already.
        progress: called with the files done and all files.

    Raises:
        OSError: a folder is missing or cannot be written. ValueError: a file or an existing cache is damaged.
    """
    known = _modules()
    name = meant(name, known) or name
    if name not in known:
        raise ValueError(f"name must be one of {', '.join(known)}, got {name!r}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    function, options = known[name].contents, {"size": size, "exact": exact or None}
    options = {option: value for option, value in options.items() if value is not None}
    for option in options:
        if option not in inspect.signature(function).parameters:
            raise ValueError(f"{option}: the images of {name} have one size; leave --{option} out")
    contents = function(Path(path), **options)
    folder = contents.files.root / FOLDER if out is None else Path(out)
    there, began = folder.exists(), time.perf_counter()
    meta = build_cache(contents, folder, workers=workers, on_corrupt=on_corrupt, progress=progress)
    seconds = time.perf_counter() - began
    return _summary(meta, folder, "checked, every byte as it was written" if there else "built", seconds)


def _modules() -> dict[str, ModuleType]:
    return {name.replace("_", "-"): sets.find(name) for name in sets.names() if sets.can_be_prepared(name)}


def _summary(meta: dict[str, Any], folder: Path, what: str, seconds: float) -> str:
    count, height, width, _ = meta["images"]
    held, lost = meta.get("held", 0), meta["left_out"]
    sizes = {"train": meta["train"], "val": held, "test": count - meta["train"] - held}
    parts = " + ".join(f"{number:,} {part}" for part, number in sizes.items() if number)
    rows = [
        ("cache", f"{folder} ({what}, {seconds:.1f} s, {count / max(seconds, 1e-9):,.0f} images/s)"),
        ("images", f"{parts}, {width}x{height}"),
        ("classes", f"{len(meta['classes'])}, by sorted name: 0 is {meta['classes'][0]}, ..."),
        ("size", f"{count * height * width * 3 / 1e6:,.1f} MB"),
        ("sha256", meta["sha256"]["images.npy"]),
        ("left out", f"{len(lost)}{': ' if lost else ''}{lost[0] if lost else ''}"),
    ]
    return "\n".join(f"{name:<10}{text}" for name, text in rows)
