"""Any folder of images, a folder for each class."""

from __future__ import annotations

from pathlib import Path

from bat_fast.data.cache import Contents
from bat_fast.data.sets._folders import existing, find_parts
from bat_fast.data.sets._trees import is_cache, load_tree, tree_contents
from bat_fast.data.source import Splits

CROPS = True  # unless `exact`
_NAME, _SIZE = "image_folder", 224


def load(
    seed: int,
    root: Path | None = None,
    size: int = _SIZE,
    exact: bool = False,
    val: float | None = None,
    test: float | None = None,
    cache: bool = True,
) -> Splits:
    """Folders ``train/CLASS``, ``val/CLASS`` (or ``valid``, ``validation``) and ``test/CLASS``; or ``CLASS``.

    With both ``val/`` and ``test/`` they are the splits of that name; a single one of them is the test. What
    is not there is cut from the training images. Images may lie in folders within those of the classes.
    Classes are numbered by sorted folder name.

    Args:
        seed: which training images validate.
        root: the folder, or a cache that ``bat-fast prepare image-folder`` has built.
        size: height and width of the batches. Larger images are resized: a centre crop, or a random one
            with ``data.augment.resized_crop``.
        exact: all files are size x size already, so nothing is resized.
        val: share of the training images that validate, the same of each class (0.1).
        test: share of them that test, the same for every seed (0.1).
        cache: take the cache in ``root`` instead of the files, where there is one.

    Raises:
        OSError: a folder is missing. ValueError: a class is empty, or an option is out of range.
    """
    folder = _root(root)
    parts = None if is_cache(folder, cache) else find_parts(folder)
    return load_tree(_NAME, folder, parts, seed=seed, size=size, exact=exact, val=val, test=test, cache=cache)


def contents(root: Path, size: int = _SIZE, exact: bool = False) -> Contents:
    """What a cache of ``root`` holds. Arguments and errors are those of `load`."""
    folder = _root(root)
    return tree_contents(_NAME, folder, find_parts(folder), size, exact, None)


def _root(root: Path | None) -> Path:
    if root is None:
        raise ValueError("data.root is missing: the folder with train/CLASS/*, or with CLASS/*")
    return existing(root, "--data.root is the folder with train/CLASS/*, or with CLASS/*")
