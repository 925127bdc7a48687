"""Any folder of images: ``train/CLASS/*`` and ``val/CLASS/*``."""

from __future__ import annotations

from pathlib import Path

from bat_fast.data.sets._folders import class_folders, existing, list_classes, tree_splits
from bat_fast.data.source import Splits


def load(
    seed: int,
    root: Path | None = None,
    size: int = 224,
    exact: bool = False,
    val: float = 0.02,
    name: str = "image_folder",
    stats: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
) -> Splits:
    """Train and val come from ``train/``; test is ``val/``. Classes are numbered by sorted folder name.

    Args:
        seed: which training images validate.
        root: the folder with ``train`` and ``val``.
        size: height and width of the batches. Larger images are resized: a centre crop, or a random one
            with ``data.augment.resized_crop``.
        exact: all files are size x size already, so nothing is resized.
        val: share of the training images that validate, stratified.
        name: of the data set.
        stats: mean and std of the channels; None measures some images.

    Raises:
        OSError: a folder is missing. ValueError: a class is empty, or an option is out of range.
    """
    if root is None:
        raise ValueError(f"data.root is missing: the folder of {name} with train/CLASS and val/CLASS")
    if size < 1:
        raise ValueError(f"data.options.size must be at least 1, got {size}")
    if not 0 <= val < 1:
        raise ValueError(f"data.options.val must be in [0, 1), a share of the training images, got {val}")
    for part in ("train", "val"):
        existing(root / part, "--data.root is the folder with train/CLASS/* and val/CLASS/*")
    classes = class_folders(root / "train")
    train, test = (list_classes(root, part, classes) for part in ("train", "val"))
    count = round(val * len(train.names))
    return tree_splits(
        root, name, classes, train, test, size=size, exact=exact, val=count, seed=seed, stats=stats
    )
