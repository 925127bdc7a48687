"""A data set of Hugging Face ``datasets``, as its ``save_to_disk`` writes it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from bat_fast.data.cache import UNKNOWN
from bat_fast.data.files import Files
from bat_fast.data.parts import cut_parts
from bat_fast.data.source import Source, Splits

CROPS = True  # unless `exact`
_PARTS = {"train": ("train",), "val": ("validation", "valid", "val"), "test": ("test",)}
_MEASURED = 2000  # images of which mean and std are taken


@dataclass(frozen=True, eq=False)
class _Rows(Files):
    """Encoded images in the rows of tables, one table after the other."""

    tables: Sequence[Any] = field(default=())
    column: str = "image"

    @property
    def on_disk(self) -> bool:
        return False

    def plain_size(self, row: int) -> None:
        """Only Pillow reads them."""

    def open(self, row: int) -> str | BinaryIO:
        for table in self.tables:
            if row < len(table):
                image = table[row][self.column]
                return io.BytesIO(image["bytes"]) if image["bytes"] is not None else str(image["path"])
            row -= len(table)
        raise IndexError(row)


def load(
    seed: int,
    root: Path | None = None,
    size: int = 224,
    exact: bool = False,
    val: float | None = None,
    test: float | None = None,
    image: str | None = None,
    label: str | None = None,
) -> Splits:
    """Splits ``train``, ``validation`` and ``test`` of the saved set; a single other one is the test.

    What is not there is cut from the training images, as in `bat_fast.data.sets.image_folder.load`. Images
    stay encoded, where they lie, and are read by the rule of all files.

    Args:
        seed: which training images validate.
        root: the folder that ``save_to_disk`` wrote.
        size: height and width of the batches; larger images are cropped and resized.
        exact: all images are size x size already.
        val: share of the training images that validate, the same of each class (0.1).
        test: share of them that test, the same for every seed (0.1).
        image, label: columns; None takes the only one of images, and ``label`` or the only one of classes.

    Raises:
        ImportError: ``datasets`` is not installed. OSError: the folder is missing. ValueError: a column is
            missing, or holds no classes.
    """
    try:
        from datasets import ClassLabel, Dataset, Image, load_from_disk
    except ImportError:
        raise ImportError("the set hf needs the package datasets: pip install datasets") from None
    if root is None:
        raise ValueError("data.root is missing: the folder that save_to_disk wrote")
    if size < 1:
        raise ValueError(f"data.options.size must be at least 1, got {size}")
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder: --data.root is the one that save_to_disk wrote")
    saved = load_from_disk(str(root))
    splits = {"train": saved} if isinstance(saved, Dataset) else dict(saved)
    named = {part: next((splits[n] for n in names if n in splits), None) for part, names in _PARTS.items()}
    if named["train"] is None:
        raise ValueError(f"{root} has no split train; it has {', '.join(splits)}")
    if named["test"] is None or named["val"] is None:  # a single other part is the test
        named |= {"val": None, "test": named["test"] if named["val"] is None else named["val"]}
    features = named["train"].features
    for asked in (image, label):
        if asked is not None and asked not in features:
            raise ValueError(f"{root}: there is no column {asked}; there are {', '.join(features)}")
    picture = _column("image", image, [n for n, kind in features.items() if isinstance(kind, Image)], root)
    classes = [name for name, kind in features.items() if isinstance(kind, ClassLabel)]
    target = _column("label", label, ["label"] if "label" in features else classes, root)
    tables = [part.cast_column(picture, Image(decode=False)) for part in named.values() if part is not None]
    labels = [np.asarray(table.with_format("numpy")[target][:]) for table in tables]
    numbers = torch.from_numpy(np.concatenate(labels))
    if numbers.is_floating_point() or numbers.dim() != 1:
        raise ValueError(f"{root}: column {target} holds no classes: choose another data.options.label")
    names = getattr(features[target], "names", None) or [str(k) for k in range(int(numbers.max()) + 1)]
    rows = _Rows(root, range(len(numbers)), size, exact, tables, picture)  # type: ignore[arg-type]
    every, (mean, std) = torch.arange(len(numbers)), UNKNOWN
    whole = Source(rows, numbers.long(), every, len(names), "hf", tuple(names), mean, std, rows=every)
    train, held = len(named["train"]), len(named["val"] or ())
    return cut_parts(whole, train, held, val=val, test=test, seed=seed, most=_MEASURED)


def _column(option: str, asked: str | None, found: list[str], root: Path) -> str:
    if asked is not None:
        return asked
    if len(found) != 1:
        there = ", ".join(found) or "none"
        raise ValueError(f"{root}: name its column with --data.options.{option}; there are: {there}")
    return found[0]
