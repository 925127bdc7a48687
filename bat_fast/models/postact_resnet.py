"""Residual networks that activate the sum (He et al. 2015, arXiv:1512.03385), for small images."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import Tensor, nn

from bat_fast.models.activation import activation
from bat_fast.models.base import BlockClassifier, Spec

NAMES = ("postactresnet18", "postactresnet34")
PATTERN = re.compile(r"post[-_]?act[-_]?resnet[-_]?(18|34)")
_COUNTS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def _conv_norm(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class Block(nn.Module):
    """Two 3x3 convolutions, each before batch norm, added to the input and activated.

    Where the shape changes, the shortcut is a 1x1 convolution and batch norm.
    """

    def __init__(self, inputs: int, planes: int, stride: int, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        first, second = _conv_norm(inputs, planes, 3, stride), _conv_norm(planes, planes, 3)
        self.body = nn.Sequential(*first, make(), *second)
        same = stride == 1 and inputs == planes
        self.shortcut = nn.Sequential(*([] if same else _conv_norm(inputs, planes, 1, stride)))
        self.leave = make()

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, planes, H / stride, W / stride] of ``x`` [N, inputs, H, W]."""
        active: Tensor = self.leave(self.body(x) + self.shortcut(x))
        return active


class PostActResNet(BlockClassifier):
    """ResNet-18 or -34 with a 3x3 stem that keeps the resolution: the "ResNet-18" of MART and of TE.

    It has 11.17 M parameters for depth 18 and 10 classes.

    Args:
        spec: classes, channels, activation and normalisation.
        depth: 18 or 34.

    Raises:
        ValueError: another depth.
    """

    def __init__(self, spec: Spec, *, depth: int = 18) -> None:
        if depth not in _COUNTS:
            raise ValueError(f"depth of a PostActResNet must be 18 or 34, got {depth}")
        super().__init__(spec, feature_dim=512)
        make = activation(spec.activation)
        self.stem = nn.Sequential(*_conv_norm(spec.in_channels, 64, 3), make())
        blocks: list[nn.Module] = []
        channels = 64
        for planes, count in zip((64, 128, 256, 512), _COUNTS[depth], strict=True):
            for position in range(count):
                blocks.append(Block(channels, planes, 2 if planes > 64 and position == 0 else 1, make))
                channels = planes
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, spec.num_classes)

    def embed(self, x: Tensor) -> Tensor:
        """The features [N, 512] of normalised images ``x`` [N, C, H, W]."""
        return self.through_blocks(self.stem(x)).mean((2, 3))


def build(match: re.Match[str], spec: Spec) -> PostActResNet:
    """``postactresnet18`` and its spellings."""
    return PostActResNet(spec, depth=int(match[1]))
