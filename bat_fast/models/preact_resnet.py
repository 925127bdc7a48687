"""Pre-activation residual networks (He et al. 2016, arXiv:1603.05027) for small images."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from bat_fast.models.activation import activation
from bat_fast.models.base import BlockClassifier, Spec

NAMES = ("preactresnet18", "preactresnet34", "preactresnet50", "preactresnet18_raw")
PATTERN = re.compile(r"pre[-_]?act[-_]?resnet[-_]?(18|34|50)([-_]raw)?")


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each after batch norm and activation, added to the input.

    Where the shape changes, the shortcut is a 1x1 convolution of the *activated* input.
    """

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.enter = nn.Sequential(nn.BatchNorm2d(inputs), make())
        self.body = self._body(inputs, planes, stride, make)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else _conv(inputs, outputs, 1, stride)

    def _body(self, inputs: int, planes: int, stride: int, make: Callable[[], nn.Module]) -> nn.Module:
        first, second = _conv(inputs, planes, 3, stride), _conv(planes, planes, 3)
        return nn.Sequential(first, nn.BatchNorm2d(planes), make(), second)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, planes * expansion, H / stride, W / stride] of ``x`` [N, inputs, H, W]."""
        active: Tensor = self.enter(x)
        residual: Tensor = self.body(active)
        return residual + (x if self.shortcut is None else self.shortcut(active))


class RawShortcut(BasicBlock):
    """The basic block with a shortcut that convolves the raw input, as in the code of Wong et al. 2020."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, planes, H / stride, W / stride] of ``x`` [N, inputs, H, W]."""
        residual: Tensor = self.body(self.enter(x))
        return residual + (x if self.shortcut is None else self.shortcut(x))


class Bottleneck(BasicBlock):
    """1x1, 3x3 and 1x1 convolutions; four times as many channels leave as the middle has."""

    expansion = 4

    def _body(self, inputs: int, planes: int, stride: int, make: Callable[[], nn.Module]) -> nn.Module:
        return nn.Sequential(
            *(_conv(inputs, planes, 1), nn.BatchNorm2d(planes), make()),
            *(_conv(planes, planes, 3, stride), nn.BatchNorm2d(planes), make()),
            _conv(planes, planes * self.expansion, 1),
        )


class PreActNet(BlockClassifier):
    """A 3x3 stem, stages of blocks, batch norm and activation, the average over the image, a linear layer.

    The stem keeps the resolution and every stage but the first halves it, so 32x32 and 64x64 images
    (and any other size) go through the same weights.

    Args:
        spec: classes, channels, activation and normalisation.
        block: the residual block.
        stem: channels of the stem.
        stages: (channels, number of blocks) of each stage.
    """

    def __init__(
        self, spec: Spec, block: type[BasicBlock], stem: int, stages: Sequence[tuple[int, int]]
    ) -> None:
        super().__init__(spec, feature_dim=stages[-1][0] * block.expansion)
        make = activation(spec.activation)
        self.stem = _conv(spec.in_channels, stem, 3)
        blocks: list[nn.Module] = []
        channels = stem
        for stage, (planes, depth) in enumerate(stages):
            for position in range(depth):
                stride = 2 if stage > 0 and position == 0 else 1
                blocks.append(block(channels, planes, stride, make))
                channels = planes * block.expansion
        self.blocks = nn.Sequential(*blocks)
        self.leave = nn.Sequential(nn.BatchNorm2d(channels), make())
        self.head = nn.Linear(channels, spec.num_classes)

    def embed(self, x: Tensor) -> Tensor:
        """The features [N, D] of normalised images ``x`` [N, C, H, W]."""
        maps: Tensor = self.leave(self.through_blocks(self.stem(x)))
        return maps.mean((2, 3))


_LAYOUTS: dict[int, tuple[type[BasicBlock], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
}


class PreActResNet(PreActNet):
    """PreActResNet-18, -34 or -50 with the stem for small images (11.17 M parameters for 18, 10 classes).

    Args:
        spec: classes, channels, activation and normalisation.
        depth: 18, 34 or 50.
        raw: the shortcuts take the input of a block rather than its activation; of depth 18 and 34.

    Raises:
        ValueError: another depth.
    """

    def __init__(self, spec: Spec, *, depth: int = 18, raw: bool = False) -> None:
        if depth not in _LAYOUTS:
            raise ValueError(f"depth of a PreActResNet must be 18, 34 or 50, got {depth}")
        block, counts = _LAYOUTS[depth]
        if raw and block is not BasicBlock:
            raise ValueError(f"a PreActResNet with raw shortcuts has depth 18 or 34, got {depth}")
        block = RawShortcut if raw else block
        super().__init__(spec, block, 64, list(zip((64, 128, 256, 512), counts, strict=True)))


def build(match: re.Match[str], spec: Spec) -> PreActResNet:
    """``preactresnet18`` and its spellings."""
    return PreActResNet(spec, depth=int(match[1]), raw=match[2] is not None)
