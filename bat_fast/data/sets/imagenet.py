"""ImageNet (ILSVRC 2012) as folders of JPEG files."""

from __future__ import annotations

from pathlib import Path

from bat_fast.data.sets import image_folder
from bat_fast.data.source import Shape, Splits

SHAPE = Shape(1000, 3, 224)
_PUBLISHED = 1_281_167
_VAL = 0.01
TRAIN_IMAGES = _PUBLISHED - round(_VAL * _PUBLISHED)
_STATS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # the usual ones of the literature


def load(seed: int, root: Path | None = None, size: int = SHAPE.image_size, val: float = _VAL) -> Splits:
    """Train and val come from ``train/WNID/``; test is the published ``val/WNID/``, 50 000 images.

    Classes are numbered by sorted WNID. Arguments and errors are those of
    `bat_fast.data.sets.image_folder.load`.
    """
    return image_folder.load(seed, root, size, val=val, name="imagenet", stats=_STATS)
