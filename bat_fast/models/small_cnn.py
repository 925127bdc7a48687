"""A small convolutional network for small images, made to be attacked fast on a CPU."""

from __future__ import annotations

import re

from torch import Tensor, nn

from bat_fast.models.activation import activation
from bat_fast.models.base import Classifier, Spec

NAMES = ("small_cnn",)
PATTERN = re.compile(r"small[-_]?cnn")


class SmallCNN(Classifier):
    """Three 3x3 convolutions with batch norm, then the average over the image and a linear layer.

    Takes any image of at least 8x8 pixels. Speed is why the first layer has a stride already: ten steps of
    PGD on a batch of 128 digits of 8x8 take about 4 ms on two CPU cores.

    Args:
        spec: classes, channels, activation and normalisation.
        width: channels of the first layer; the other two have twice as many.
    """

    def __init__(self, spec: Spec, *, width: int = 32) -> None:
        super().__init__(spec, feature_dim=2 * width)
        layers: list[nn.Module] = []
        make = activation(spec.activation)
        channels = spec.in_channels
        for out, stride in ((width, 2), (2 * width, 2), (2 * width, 1)):
            conv = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(out), make()]
            channels = out
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels, spec.num_classes)

    def embed(self, x: Tensor) -> Tensor:
        """The features [N, D] of normalised images ``x`` [N, C, H, W]."""
        maps: Tensor = self.body(x)
        return maps.mean((2, 3))


def build(match: re.Match[str], spec: Spec) -> SmallCNN:
    """``small_cnn``."""
    return SmallCNN(spec)
