"""The data sets of the literature: what a model for them looks like, known without reading them."""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    """Classes and image size of a data set."""

    num_classes: int
    in_channels: int
    image_size: int  # height = width


KNOWN = {
    "digits": Shape(10, 1, 8),
    "cifar10": Shape(10, 3, 32),
    "cifar100": Shape(100, 3, 32),
    "svhn": Shape(10, 3, 32),
    "tiny_imagenet": Shape(200, 3, 64),
    "imagenet": Shape(1000, 3, 224),
}
