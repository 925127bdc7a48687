"""CIFAR-100 (Krizhevsky 2009), 60 000 images of 32x32 in 100 fine classes."""

from __future__ import annotations

from pathlib import Path

from bat_fast.data.sets._cifar import Layout, load_cifar
from bat_fast.data.source import Shape, Splits

SHAPE = Shape(100, 3, 32)
_VAL = 1000
TRAIN_IMAGES = 50_000 - _VAL
LAYOUT = Layout(
    name="cifar100",
    dataset="CIFAR100",
    python="cifar-100-python",
    binary="cifar-100-binary",
    train=("train",),
    test="test",
    label="fine_labels",
    label_bytes=2,  # coarse, fine
    names=("meta", "fine_label_names"),
    num_classes=SHAPE.num_classes,
)


def load(seed: int, root: Path | None = None, val: int = _VAL) -> Splits:
    """Train and val come from the 50 000 training images; test is the test file.

    Arguments and errors are those of `bat_fast.data.sets._cifar.load_cifar`.
    """
    return load_cifar(LAYOUT, seed, root, val)
