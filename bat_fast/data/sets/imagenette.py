"""Imagenette (fast.ai 2019): ten easy classes of ImageNet, in three sizes."""

from __future__ import annotations

from pathlib import Path

from bat_fast.data.cache import Contents
from bat_fast.data.sets._download import download
from bat_fast.data.sets._folders import Parts
from bat_fast.data.sets._trees import is_cache, load_tree, tree_contents
from bat_fast.data.source import Shape, Splits

SHAPE = Shape(10, 3, 128)
CROPS = True
_PUBLISHED = 9469
_VAL = 0.1
TRAIN_IMAGES = _PUBLISHED - round(_VAL * _PUBLISHED)
# Folder of each size, as its archive unpacks it, and the shorter side of its images.
_SIZES = {"imagenette2-160": 160, "imagenette2-320": 320, "imagenette2": 10_000}
_PARTS = Parts("train", None, "val")


def load(
    seed: int, root: Path | None = None, size: int = SHAPE.image_size, val: float = _VAL, cache: bool = True
) -> Splits:
    """Train and val come from ``train/WNID/``; test is the published ``val/WNID/``, 3925 images.

    ``root`` is one of ``imagenette2-160``, ``imagenette2-320`` and ``imagenette2``, or their parent, out of
    which the smallest large enough is taken; None is ``data``. What is not there is downloaded by
    torchvision. Classes are numbered by sorted WNID. Arguments and errors are those of
    `bat_fast.data.sets.image_folder.load`.
    """
    folder = Path("data") if root is None else root
    parts = None
    if not is_cache(folder, cache):
        folder, parts = _find(folder, size) or _fetch(folder, size), _PARTS
    return load_tree("imagenette", folder, parts, seed=seed, size=size, val=val, cache=cache)


def contents(root: Path, size: int = SHAPE.image_size) -> Contents:
    """What a cache of ``root`` holds. Arguments and errors are those of `load`."""
    folder = _find(root, size)
    if folder is None:
        raise FileNotFoundError(f"{root} is no folder of imagenette: it needs train/WNID/* and val/WNID/*")
    return tree_contents("imagenette", folder, _PARTS, size, False, None)


def _find(root: Path, size: int) -> Path | None:
    """The folder that holds the images: ``root``, or the smallest in it that is large enough."""
    if (root / "train").is_dir() and (root / "val").is_dir():
        return root
    there = [name for name in _SIZES if (root / name / "train").is_dir() and (root / name / "val").is_dir()]
    large = [name for name in there if _SIZES[name] >= size]
    return root / (large or there[::-1])[0] if there else None


def _fetch(root: Path, size: int) -> Path:
    name = next(name for name, side in _SIZES.items() if side >= min(size, 10_000))
    small = name.partition("-")[2]
    download("Imagenette", root, split="train", size=f"{small}px" if small else "full")
    return root / name
