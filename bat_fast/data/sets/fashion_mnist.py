"""Fashion-MNIST (Xiao et al. 2017), 70 000 articles of clothing, 28x28, grey."""

from __future__ import annotations

from pathlib import Path

from bat_fast.data.sets._idx import load_idx
from bat_fast.data.source import Shape, Splits

SHAPE = Shape(10, 1, 28)
_VAL = 1000
TRAIN_IMAGES = 60_000 - _VAL
_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def load(seed: int, root: Path | None = None, val: int = _VAL) -> Splits:
    """Train and val come from the 60 000 training images; test is ``t10k``.

    Arguments and errors are those of `bat_fast.data.sets._idx.load_idx`.
    """
    return load_idx("FashionMNIST", "fashion_mnist", _CLASSES, seed=seed, root=root, val=val)
