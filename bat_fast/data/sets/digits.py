"""Handwritten digits, 1797 images of 8x8 pixels that ship with scikit-learn: no download."""

from __future__ import annotations

import torch

from bat_fast._install import install
from bat_fast.data.source import Shape, Source, Splits, pixel_stats

SHAPE = Shape(10, 1, 8)
TRAIN_IMAGES = 1258  # of 1797
_VAL, _TEST = 0.1, 0.2  # shares of all samples; the rest trains


def load(seed: int) -> Splits:
    """Split the digits 70/10/20 % into train, val and test, with the classes in equal shares.

    Images are [M, 1, 8, 8] float32: the 17 grey levels of the file divided by 16. ``index`` is the row in
    `sklearn.datasets.load_digits`, whatever the split. Source: E. Alpaydin and C. Kaynak, "Optical
    Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998 (its test part).

    Args:
        seed: which split, 0 <= seed < 2^32.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: ``seed`` is out of range.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise ImportError(f"the digits data need scikit-learn: {install('sklearn')}") from None
    if not 0 <= seed < 1 << 32:
        raise ValueError(f"seed of the digits split must be in [0, 2^32), got {seed}")
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).div(16.0).float().unsqueeze(1)  # [1797, 1, 8, 8]
    labels = torch.from_numpy(bunch.target).long()
    total = len(labels)
    rows, test = train_test_split(
        range(total), test_size=round(_TEST * total), stratify=bunch.target, random_state=seed
    )
    train, val = train_test_split(
        rows, test_size=round(_VAL * total), stratify=bunch.target[rows], random_state=seed
    )
    mean, std = pixel_stats(images[train])

    def source(part: list[int]) -> Source:
        index = torch.tensor(part)
        classes = tuple(str(name) for name in bunch.target_names)
        return Source(images[index], labels[index], index, len(classes), "digits", classes, mean, std)

    return Splits(source(train), source(val), source(test))
