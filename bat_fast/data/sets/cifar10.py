"""CIFAR-10 (Krizhevsky 2009), 60 000 images of 32x32."""

from __future__ import annotations

from pathlib import Path

from bat_fast.data.sets._cifar import Layout, load_cifar
from bat_fast.data.source import Shape, Splits

SHAPE = Shape(10, 3, 32)
_VAL = 1000
TRAIN_IMAGES = 50_000 - _VAL
LAYOUT = Layout(
    name="cifar10",
    dataset="CIFAR10",
    python="cifar-10-batches-py",
    binary="cifar-10-batches-bin",
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test="test_batch",
    label="labels",
    label_bytes=1,
    names=("batches.meta", "label_names"),
    num_classes=SHAPE.num_classes,
)


def load(seed: int, root: Path | None = None, val: int = _VAL) -> Splits:
    """Train and val come from the 50 000 training images; test is the test batch.

    Arguments and errors are those of `bat_fast.data.sets._cifar.load_cifar`.
    """
    return load_cifar(LAYOUT, seed, root, val)
