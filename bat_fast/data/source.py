"""What a data set is: tensors of images and labels with an identity for every sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

_TOLERANCE = 1e-6  # pixels resized in float32 may leave [0, 1] by a rounding


@dataclass(frozen=True, eq=False)
class Source:
    """One split of a data set, in memory.

    Raises:
        ValueError: a shape or dtype does not fit, a label is no class, an index appears twice, or float
            pixels leave [0, 1].
    """

    images: Tensor  # [M, C, H, W] uint8, or float32 in [0, 1]
    labels: Tensor  # [M] int64, 0 <= label < num_classes
    index: Tensor  # [M] int64 data set ids, the same whatever the split
    num_classes: int
    name: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    """Mean of each channel over the training split, in [0, 1]."""
    std: tuple[float, ...]
    """Standard deviation of each channel over the training split."""
    true_labels: Tensor | None = None  # [M] int64, where ``labels`` were changed on purpose

    def __post_init__(self) -> None:
        where = f"data set {self.name}"
        if self.images.dim() != 4 or self.images.dtype not in (torch.uint8, torch.float32):
            kind = f"{list(self.images.shape)} {self.images.dtype}"
            raise ValueError(f"{where}: images must be [M, C, H, W] uint8 or float32, got {kind}")
        for name in ("labels", "index"):
            rows: Tensor = getattr(self, name)
            if rows.shape != self.images.shape[:1] or rows.dtype != torch.int64:
                got = f"{list(rows.shape)} {rows.dtype}"
                raise ValueError(f"{where}: {name} must be [{len(self.images)}] int64, got {got}")
        for name, count in (
            ("mean", self.images.shape[1]),
            ("std", self.images.shape[1]),
            ("class_names", self.num_classes),
        ):
            if len(getattr(self, name)) != count:
                raise ValueError(f"{where}: {name} needs {count} entries, got {len(getattr(self, name))}")
        if len(self.images):
            self._check_values(where)

    def _check_values(self, where: str) -> None:
        low, high = (int(value) for value in self.labels.aminmax())
        if low < 0 or high >= self.num_classes:
            bad = low if low < 0 else high
            raise ValueError(
                f"{where}: labels hold class {bad}, outside [0, {self.num_classes}): "
                "number the classes from 0"
            )
        if len(self.index.unique()) != len(self.index):
            raise ValueError(f"{where}: index holds an id twice, but every sample needs its own")
        if self.images.dtype == torch.float32:
            least, most = (float(value) for value in self.images.aminmax())
            if not (least >= -_TOLERANCE and most <= 1.0 + _TOLERANCE):
                raise ValueError(
                    f"{where}: pixels in [{least:.4g}, {most:.4g}], outside [0, 1]: scale them, "
                    "and leave the normalisation to the model"
                )

    def __len__(self) -> int:
        return len(self.labels)


class Splits(NamedTuple):
    """The three parts of a data set; no sample is in two of them."""

    train: Source
    val: Source
    test: Source


def pixel_stats(
    images: Tensor,  # [M, C, H, W] uint8, or float32 in [0, 1]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of pixels scaled to [0, 1]."""
    scale = 255.0 if images.dtype == torch.uint8 else 1.0
    planes = [images[:, channel].double() / scale for channel in range(images.shape[1])]
    means = tuple(float(plane.mean()) for plane in planes)
    return means, tuple(float(plane.std(correction=0)) for plane in planes)
