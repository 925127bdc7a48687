"""ImageNet (ILSVRC 2012) as folders of JPEG files."""

from __future__ import annotations

from pathlib import Path

from bat_fast.data.cache import Contents
from bat_fast.data.sets._folders import Parts, existing
from bat_fast.data.sets._trees import is_cache, load_tree, tree_contents
from bat_fast.data.source import Shape, Splits

SHAPE = Shape(1000, 3, 224)
CROPS = True
_PUBLISHED = 1_281_167
_VAL = 0.01
TRAIN_IMAGES = _PUBLISHED - round(_VAL * _PUBLISHED)
_STATS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # the usual ones of the literature


def load(
    seed: int, root: Path | None = None, size: int = SHAPE.image_size, val: float = _VAL, cache: bool = True
) -> Splits:
    """Train and val come from ``train/WNID/``; test is the published ``val/WNID/``, 50 000 images.

    Classes are numbered by sorted WNID. Arguments and errors are those of
    `bat_fast.data.sets.image_folder.load`.
    """
    parts = None if root is not None and is_cache(root, cache) else _parts(root)
    assert root is not None  # `_parts` has asked for it
    return load_tree("imagenet", root, parts, seed=seed, size=size, val=val, cache=cache, stats=_STATS)


def contents(root: Path, size: int = SHAPE.image_size) -> Contents:
    """What a cache of ``root`` holds. Arguments and errors are those of `load`."""
    return tree_contents("imagenet", root, _parts(root), size, False, _STATS)


def _parts(root: Path | None) -> Parts:
    if root is None:
        raise ValueError("data.root is missing: the folder of imagenet with train/WNID and val/WNID")
    for part in ("train", "val"):
        existing(root / part, "--data.root is the folder with train/WNID/* and val/WNID/*")
    return Parts("train", None, "val")
