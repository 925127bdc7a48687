"""A model as other programs take it: from pixels to logits, in float32 on the CPU."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from bat_fast._logits import logits_of


class Logits(nn.Module):
    """Pixels to logits, and nothing else: a model may return more, and take options.

    Args:
        classifier: of pixels in [0, 1].
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of ``x`` [N, C, H, W]."""
        return logits_of(self.classifier(x))


def plain(model: nn.Module) -> Logits:
    """A copy of ``model`` in eval mode and float32 on the CPU, without gradients."""
    copied = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    return Logits(copied).eval()


def example(described: dict[str, object], count: int = 2) -> Tensor:
    """Images [count, C, H, W] of the size that the model takes."""
    size = described["image_size"]
    return torch.rand(count, int(str(described["in_channels"])), int(str(size)), int(str(size)))
