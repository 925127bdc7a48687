"""Wide residual networks (Zagoruyko and Komodakis 2016, arXiv:1605.07146)."""

from __future__ import annotations

import re

from torch import nn

from bat_fast.models.base import Spec
from bat_fast.models.preact_resnet import BasicBlock, PreActNet

NAMES = ("wrn_DEPTH_WIDTH",)
PATTERN = re.compile(r"(?:wrn|wide[-_]?resnet)[-_]?(\d+)[-_](\d+)")


class WideResNet(PreActNet):
    """WRN-depth-width: three stages of (depth - 4) / 6 blocks with 16, 32 and 64 times ``width`` channels.

    WRN-28-10 has 36.5 M parameters. The blocks are those of the pre-activation network. Convolutions
    start from a normal distribution scaled by their outputs, as in the code of the paper.

    Args:
        spec: classes, channels, activation and normalisation.
        depth: number of layers, 6 n + 4.
        width: widening factor.

    Raises:
        ValueError: ``depth`` is not 6 n + 4 with n >= 1, or ``width`` < 1.
    """

    def __init__(self, spec: Spec, *, depth: int = 28, width: int = 10) -> None:
        count, rest = divmod(depth - 4, 6)
        if rest or count < 1:
            raise ValueError(f"depth of a WideResNet must be 6 n + 4 (10, 16, 22, 28, 34, ...), got {depth}")
        if width < 1:
            raise ValueError(f"width of a WideResNet must be at least 1, got {width}")
        super().__init__(spec, BasicBlock, 16, [(planes * width, count) for planes in (16, 32, 64)])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        assert isinstance(self.head, nn.Linear)
        nn.init.zeros_(self.head.bias)


def build(match: re.Match[str], spec: Spec) -> WideResNet:
    """``wrn_28_10``, ``WideResNet-34-10``, and any other depth and width."""
    return WideResNet(spec, depth=int(match[1]), width=int(match[2]))
