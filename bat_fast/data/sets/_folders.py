"""Folders of images, one folder for each class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from bat_fast.data.files import SUFFIXES, Files, decode_rows
from bat_fast.data.source import Source, Splits, divide, pixel_stats

_STATS = 2000  # images of which mean and std are taken


class Listing(NamedTuple):
    """Image files, relative to the root, and their classes, in the order of the sorted paths."""

    names: list[str]
    labels: list[int]


def existing(folder: Path, fix: str) -> Path:
    """``folder``, or FileNotFoundError with ``fix`` as the way out."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: {fix}")
    return folder


def class_folders(folder: Path) -> tuple[str, ...]:
    """The sorted names of the folders in ``folder``: the class ids of most image sets."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    if not names:
        raise ValueError(f"{folder} holds no class folders; expected {folder}/CLASS/*.JPEG")
    return tuple(names)


def list_classes(root: Path, part: str, classes: Sequence[str]) -> Listing:
    """The images of ``root/part/CLASS/`` and ``root/part/CLASS/images/`` (as in Tiny ImageNet).

    Raises:
        ValueError: a class without images, a folder that is no class, or one file name in two classes of a
            part that was sorted by hand.
    """
    names: list[str] = []
    labels: list[int] = []
    unknown = sorted(set(class_folders(root / part)) - set(classes))
    if unknown:
        raise ValueError(
            f"{root / part / unknown[0]}: class {unknown[0]} is not one of the {len(classes)} training "
            "classes; delete or rename the folder"
        )
    for label, name in enumerate(classes):
        inner = f"{part}/{name}/images"
        place = inner if (root / inner).is_dir() else f"{part}/{name}"
        found = images_in(root / place) if (root / place).is_dir() else []
        if not found:
            raise ValueError(
                f"{root / part / name}: class {name} has no images ({', '.join(SUFFIXES)}); restore them, or "
                "remove the class from all parts"
            )
        names += [f"{place}/{file}" for file in found]
        labels += [label] * len(found)
    return Listing(names, labels)


def images_in(folder: Path) -> list[str]:
    """The sorted names of the image files in ``folder``."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.name.lower().endswith(SUFFIXES))


def check_names(listing: Listing, root: Path) -> None:
    """Raise ValueError where one file name occurs twice: a copy with another label, or a sort gone wrong."""
    seen: dict[str, str] = {}
    for path in listing.names:
        name = path.rpartition("/")[2]
        if name in seen:
            raise ValueError(f"{root / path}: the same name as {root / seen[name]}; keep one of the two")
        seen[name] = path


def tree_splits(
    root: Path,
    name: str,
    classes: tuple[str, ...],
    train: Listing,
    test: Listing,
    *,
    size: int,
    exact: bool,
    val: int,
    seed: int,
    stats: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
) -> Splits:
    """The splits of a data set of files. Ids count the files of ``train`` and then those of ``test``.

    Args:
        root: the folder that the files start from.
        name: of the data set.
        classes: the names of the classes.
        train, test: the files.
        size: height and width of the decoded images.
        exact: the files have that size already.
        val: how many of ``train`` validate: the same share of each class.
        seed: which ones validate.
        stats: mean and std of each channel; None measures some images.
    """
    files = Files(root, [*train.names, *test.names], size, exact)
    labels = torch.tensor([*train.labels, *test.labels])
    mean, std = stats or _file_stats(files, len(train.names))
    every = torch.arange(len(files))
    whole = Source(files, labels, every, len(classes), name, classes, mean, std, rows=every)
    return divide(whole, len(train.names), val, seed)


def _file_stats(files: Files, train: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of the channels, of some evenly spread training images that can be decoded."""
    some: Tensor = torch.linspace(0, train - 1, min(train, _STATS)).long()
    pixels, failed = decode_rows(files, some.tolist())
    kept = [place for place in range(len(some)) if place not in failed]
    if not kept:
        raise ValueError(next(iter(failed.values())))
    return pixel_stats(pixels[kept].permute(0, 3, 1, 2))
