"""What the images of each class are taken for."""

from __future__ import annotations

from torch import Tensor


def confusion(given: Tensor, label: Tensor, classes: int) -> Tensor:
    """[K, K] counts: true class by given class.

    Args:
        given: [N] int64 classes; below 0 there is no answer, which does not count.
        label: [N] int64.
        classes: K.
    """
    known = given >= 0
    places = label[known] * classes + given[known]
    return places.bincount(minlength=classes**2).view(classes, classes)
