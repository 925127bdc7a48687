"""Data sets by name, and the loaders that make batches of them, with pixels in [0, 1].

`bat_fast.data.sets` says how to add a data set.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bat_fast.data.augment import Augment
from bat_fast.data.extra import ExtraData
from bat_fast.data.files import Files
from bat_fast.data.given import from_arrays, from_loader, join
from bat_fast.data.label_noise import add_label_noise
from bat_fast.data.loaders import choose, create_loader
from bat_fast.data.loaders.base import Loader
from bat_fast.data.loaders.resident import ResidentLoader
from bat_fast.data.parts import joined, resized
from bat_fast.data.sets import GIVEN, find, names
from bat_fast.data.single import crops, load_fitting, load_image
from bat_fast.data.source import Shape, Source, Splits, divide, pixel_stats
from bat_fast.ratio import Ratio

__all__ = [
    "GIVEN",
    "Augment",
    "ExtraData",
    "Files",
    "Loader",
    "ResidentLoader",
    "Shape",
    "Source",
    "Splits",
    "add_label_noise",
    "choose",
    "create_loader",
    "crops",
    "divide",
    "from_arrays",
    "from_loader",
    "has_option",
    "join",
    "joined",
    "load",
    "load_fitting",
    "load_image",
    "names",
    "pixel_stats",
    "resized",
    "shape",
    "train_images",
]


def shape(name: str, options: Mapping[str, Any] = MappingProxyType({})) -> Shape | None:
    """Classes and image size of data set ``name``, without reading it; None where they depend on the files.

    Args:
        name: of the data set.
        options: those that it is loaded with; ``size`` is that of its images, in pixels.

    Raises:
        ValueError: no such data set.
    """
    known: Shape | None = getattr(find(name), "SHAPE", None)
    return known if known is None or "size" not in options else known._replace(image_size=options["size"])


def train_images(name: str) -> int | None:
    """The size of the training split of data set ``name`` with its default options, without reading it.

    Images that validate are not among them. None where the size depends on the files.

    Raises:
        ValueError: no such data set.
    """
    return getattr(find(name), "TRAIN_IMAGES", None)


def has_option(name: str, option: str) -> bool:
    """Whether data set ``name`` has ``data.options`` of that name.

    Raises:
        ValueError: no such data set.
    """
    return option in inspect.signature(find(name).load).parameters


def load(
    name: str,
    *,
    seed: int,
    root: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    label_noise: Mapping[str, Any] | None = None,
) -> Splits:
    """The train, val and test parts of data set ``name``.

    Args:
        name: one of `names`.
        seed: fixes the split, where the data set does not come with one.
        root: the folder of its files; sets that need none have no such option.
        options: what else the ``load`` of that data set takes.
        label_noise: ``kind``, ``rate`` and ``seed`` of `add_label_noise`, for the training split alone.

    Raises:
        ValueError: no such data set or option, or files that do not fit together.
        OSError: files are missing or cannot be read.
        ImportError: a package that the data set needs is not installed.
    """
    function = find(name).load
    given = dict(options or {}) | ({} if root is None else {"root": Path(root)})
    known = inspect.signature(function).parameters
    for option in given:
        if option not in known or option == "seed":
            where = "root" if option == "root" else f"options.{option}"
            there = ", ".join(other for other in known if other != "seed") or "none"
            raise ValueError(f"data.{where}: data set {name} has no such option; it has: {there}")
    splits: Splits = function(seed=seed, **given)
    if label_noise is not None and float(Ratio(label_noise["rate"])):
        splits = splits._replace(train=add_label_noise(splits.train, **label_noise))
    return splits
