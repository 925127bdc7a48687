"""Folders of images: which folder is which part, and the files of every class."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from bat_fast.data.cache import FOLDER
from bat_fast.data.pixels import suffixes

_VAL = ("val", "valid", "validation")


class Listing(NamedTuple):
    """Image files, relative to the root, and their classes, in the order of the sorted paths."""

    names: list[str]
    labels: list[int]


class Parts(NamedTuple):
    """The folders of the parts below a root.

    Args:
        train: of the training images; "" where the classes lie in the root itself.
        val, test: of the published other parts, None where there is none. A single one is the test.
    """

    train: str
    val: str | None
    test: str | None


class Tree(NamedTuple):
    """Everything that lies below a root.

    Args:
        classes: the names of the classes.
        train, val, test: the files of the parts.
    """

    classes: tuple[str, ...]
    train: Listing
    val: Listing
    test: Listing


def existing(folder: Path, fix: str) -> Path:
    """``folder``, or FileNotFoundError with ``fix`` as the way out."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: {fix}")
    return folder


def find_parts(root: Path) -> Parts:
    """Which folders of ``root`` are the parts of a data set, whatever the case of their names.

    Raises:
        ValueError: they contradict each other, or there is no folder of training images.
    """
    there = {name.lower(): name for name in _folders(root)}
    held = [there[name] for name in _VAL if name in there]
    if len(held) > 1:
        raise ValueError(f"{root} holds {held[0]}/ and {held[1]}/: keep one of them")
    val, test = held[0] if held else None, there.get("test")
    if test is not None and not _has_classes(root, there.get("train"), test):
        test = None  # images without labels, as in many competitions
    if "train" in there:
        return Parts(there["train"], *((val, test) if val and test else (None, val or test)))
    if val or test:
        raise ValueError(
            f"{root} holds {val or test}/ but no train/: move the class folders into {root}/train"
        )
    return Parts("", None, None)


def _has_classes(root: Path, train: str | None, part: str) -> bool:
    return train is None or bool({*_folders(root / train)} & {*_folders(root / part)})


def list_tree(root: Path, parts: Parts, name: str) -> Tree:
    """All files of a data set; what is left out is counted in one line on stderr.

    Args:
        root: the folder.
        parts: its folders.
        name: of the data set, for that line.

    Raises:
        ValueError: as `list_classes`.
    """
    left: Counter[str] = Counter()
    classes = class_folders(root / parts.train)
    train = list_classes(root, parts.train, classes, left)
    val, test = (
        Listing([], []) if part is None else list_classes(root, part, classes, left)
        for part in (parts.val, parts.test)
    )
    if parts.train:
        for folder in sorted({*_folders(root)} - {*parts}):
            left[f"in {folder}/, without classes of {parts.train}/"] += len(
                images_under(root / folder, Counter())
            )
    left += Counter()  # without what is 0
    if left.total():
        what = ", ".join(f"{count} {reason}" for reason, count in left.most_common())
        _say(f"{name} {root}: {left.total()} files left out: {what}")
    return Tree(classes, train, val, test)


@cache
def _say(line: str) -> None:
    """Print it on stderr, once: a command may read a set twice."""
    print(line, file=sys.stderr, flush=True)


def class_folders(folder: Path) -> tuple[str, ...]:
    """The sorted names of the folders in ``folder``: the class ids of most image sets.

    Raises:
        ValueError: there are none.
    """
    names = sorted(_folders(folder))
    if not names:
        raise ValueError(f"{folder} holds no class folders; expected {folder}/CLASS/*.jpg")
    return tuple(names)


def list_classes(root: Path, part: str, classes: Sequence[str], left: Counter[str] | None = None) -> Listing:
    """The images of ``root/part/CLASS/`` and of the folders in it.

    Args:
        root: the folder that the names of the files start from.
        part: a folder in it; "" is the root itself.
        classes: the names of the classes.
        left: counts the files that are left out, by reason.

    Raises:
        ValueError: a class without images, or a folder that is no class.
    """
    left = Counter() if left is None else left
    names: list[str] = []
    labels: list[int] = []
    unknown = sorted(set(_folders(root / part)) - set(classes))
    if unknown:
        raise ValueError(
            f"{root / part / unknown[0]}: class {unknown[0]} is not one of the {len(classes)} training "
            "classes; delete or rename the folder"
        )
    for entry in os.scandir(root / part):
        if entry.is_file():
            left["hidden" if _hidden(entry.name) else "beside the class folders"] += 1
        elif _hidden(entry.name):
            left["hidden"] += _count(Path(entry))
    for label, name in enumerate(classes):
        place = f"{part}/{name}".removeprefix("/")
        found = images_under(root / place, left) if (root / place).is_dir() else []
        if not found:
            raise ValueError(
                f"{root / place}: class {name} has no images that Pillow reads (.jpg, .png, .webp, ...); "
                "restore them, or remove the class from all parts"
            )
        names += [f"{place}/{file}" for file in found]
        labels += [label] * len(found)
    return Listing(names, labels)


def images_under(folder: Path, left: Counter[str]) -> list[str]:
    """The sorted paths, from ``folder``, of the images in it and in its folders; links are followed.

    Args:
        folder: where to look.
        left: counts the other files, by reason.
    """
    return sorted(_walk(folder, "", left, (folder.resolve(),)))


def _walk(folder: Path, inner: str, left: Counter[str], above: tuple[Path, ...]) -> Iterator[str]:
    for entry in os.scandir(folder):
        if entry.is_dir():
            place, links = Path(entry), above
            if entry.is_symlink():
                links = (*above, place.resolve())
                if any(path.is_relative_to(links[-1]) for path in (*above, folder.resolve())):
                    continue  # it leads back, and would without end
            if _hidden(entry.name):
                left["hidden"] += _count(place)
            else:
                yield from _walk(place, f"{inner}{entry.name}/", left, links)
        elif _hidden(entry.name):
            left["hidden"] += 1
        elif (end := Path(entry.name).suffix.lower()) in suffixes():
            yield inner + entry.name
        else:
            left[end or "without a suffix"] += 1


def images_in(folder: Path) -> list[str]:
    """The sorted names of the image files that lie directly in ``folder``."""
    found = (entry.name for entry in os.scandir(folder) if not _hidden(entry.name))
    return sorted(name for name in found if Path(name).suffix.lower() in suffixes())


def check_names(listing: Listing, root: Path) -> None:
    """Raise ValueError where one file name occurs twice: a copy with another label, or a sort gone wrong."""
    seen: dict[str, str] = {}
    for path in listing.names:
        name = path.rpartition("/")[2]
        if name in seen:
            raise ValueError(f"{root / path}: the same name as {root / seen[name]}; keep one of the two")
        seen[name] = path


def _folders(folder: Path) -> list[str]:
    """The names of the folders in ``folder``, but for hidden ones and the cache of ``bat-fast prepare``."""
    cache = (FOLDER, f"{FOLDER}.partial")
    found = (entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name not in cache)
    return [name for name in found if not _hidden(name)]


def _hidden(name: str) -> bool:
    """What programs leave behind: ``.ipynb_checkpoints``, ``._x.jpg``, ``.DS_Store``, ``__MACOSX``."""
    return name.startswith(".") or name == "__MACOSX"


def _count(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))
