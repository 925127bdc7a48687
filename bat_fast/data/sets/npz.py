"""Images and labels in one ``.npz`` file of numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bat_fast.data.arrays import read_npz
from bat_fast.data.given import from_arrays, join
from bat_fast.data.source import Source, Splits

# The names of images and labels of each part: our own, those of MedMNIST, those of Keras.
_NAMES = {
    "train": (("images", "labels"), ("train_images", "train_labels"), ("x_train", "y_train")),
    "val": (("val_images", "val_labels"), ("x_val", "y_val")),
    "test": (("test_images", "test_labels"), ("x_test", "y_test")),
}


def load(seed: int, root: Path | None = None, val: float | None = None, test: float | None = None) -> Splits:
    """Train on ``images`` and ``labels``, or ``train_images`` and ``train_labels``, of the file.

    ``val_images``, ``test_images`` and their labels are the other parts; what is not there is cut from the
    training images. ``x_train``, ``y_train`` and so on do as well, and ``classes``, the names. Images are as
    `bat_fast.data.from_arrays` takes them.

    Args:
        seed: which training images validate.
        root: the file.
        val: share of the training images that validate, the same of each class (0.1).
        test: share of them that test, the same for every seed (0.1).

    Raises:
        OSError: the file is missing. ValueError: it is damaged, or its arrays do not fit together.
    """
    if root is None:
        raise ValueError("data.root is missing: the file.npz with the arrays images and labels")
    if not root.is_file():
        raise FileNotFoundError(f"{root} is not a file: --data.root is the file.npz with images and labels")
    arrays = read_npz(root)
    found = {part: source for part in _NAMES if (source := _part(arrays, part, root)) is not None}
    if "train" not in found:
        raise ValueError(f"{root} needs the arrays images and labels; it has {', '.join(arrays) or 'none'}")
    for part, share in (("val", val), ("test", test)):
        if part in found and share is not None:
            raise ValueError(f"data.options.{part}: {root} has a {part} part of its own; leave it out")
    return join(found["train"], found.get("val", val), found.get("test", test), seed=seed)


def _part(arrays: dict[str, np.ndarray], part: str, root: Path) -> Source | None:
    for images, labels in _NAMES[part]:
        if images in arrays and labels in arrays:
            names = [str(name) for name in arrays["classes"]] if "classes" in arrays else None
            name = "npz" if part == "train" else f"{root.name}: {images}"
            return from_arrays(arrays[images], arrays[labels], name=name, class_names=names)
    return None
