"""The first layer of every model: pixels in [0, 1] become zero-mean, unit-variance inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """``(x - mean) / std`` per channel, as a layer.

    Because it is part of the model, everything outside (data, attacks, evaluation) sees pixels in
    [0, 1], and a saved model carries its own normalisation.

    Args:
        mean: mean of each channel, in pixels scaled to [0, 1].
        std: standard deviation of each channel, > 0, in the same unit.

    Raises:
        ValueError: ``mean`` and ``std`` differ in length, are empty, or a ``std`` is not > 0.
    """

    mean: Tensor  # [1, C, 1, 1]
    std: Tensor  # [1, C, 1, 1]

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not mean:
            raise ValueError(f"mean and std need one number per channel, got {len(mean)} and {len(std)}")
        if not all(0.0 < value < float("inf") for value in std):
            raise ValueError(f"std must be finite and > 0 in every channel, got {tuple(std)}")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The normalised images [N, C, H, W] of pixels ``x``."""
        if x.dim() != 4 or x.shape[1] != self.mean.shape[1]:  # one channel would broadcast to three
            raise ValueError(f"x must be [N, {self.mean.shape[1]}, H, W], got {list(x.shape)}")
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        return f"channels={self.mean.shape[1]}"
