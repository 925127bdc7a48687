"""The one batch type that data, methods and the trainer share."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """A batch of images in pixel space with a stable identity for every sample.

    ``index`` is the sample's id in its data set. It never depends on shuffling, batch size or world
    size, so per-sample state (random starts, soft labels, memorisation counts) can be keyed by it.
    """

    x: Tensor  # [N, C, H, W] float32 in [0, 1]
    y: Tensor  # [N] int64, 0 <= y < num_classes
    index: Tensor  # type: ignore[assignment]  # [N] int64 data set ids; shadows tuple.index

    def to(self, device: str, non_blocking: bool = True) -> Batch:
        """The same batch on ``device``."""
        return Batch(*(t.to(device, non_blocking=non_blocking) for t in self))
