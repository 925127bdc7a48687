"""MNIST (LeCun et al. 1998), 70 000 handwritten digits of 28x28, grey."""

from __future__ import annotations

from pathlib import Path

from bat_fast.data.sets._idx import load_idx
from bat_fast.data.source import Shape, Splits

SHAPE = Shape(10, 1, 28)
_VAL = 1000
TRAIN_IMAGES = 60_000 - _VAL


def load(seed: int, root: Path | None = None, val: int = _VAL) -> Splits:
    """Train and val come from the 60 000 training images; test is ``t10k``.

    Arguments and errors are those of `bat_fast.data.sets._idx.load_idx`.
    """
    classes = tuple(str(digit) for digit in range(SHAPE.num_classes))
    return load_idx("MNIST", "mnist", classes, seed=seed, root=root, val=val)
