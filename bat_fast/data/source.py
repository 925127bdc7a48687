"""What a data set is: labelled images with an identity for every sample, in memory or in files."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from bat_fast.data.files import Files, decode_rows
from bat_fast.data.order import stratified

_TOLERANCE = 1e-6  # pixels resized in float32 may leave [0, 1] by a rounding


@dataclass(frozen=True, eq=False)
class Source:
    """One split of a data set.

    The parts of a data set may share one store of images: ``rows`` says where the samples of this part lie.

    Args:
        images: [S, C, H, W] uint8, or float32 in [0, 1]; or S files.
        labels: [M] int64, 0 <= label < num_classes.
        index: [M] int64 data set ids: a sample keeps its id whatever the split.
        num_classes: number of classes.
        name: of the data set.
        class_names: one for each class.
        mean: of each channel over the training split, in [0, 1].
        std: standard deviation of each channel over the training split.
        true_labels: [M] int64, where ``labels`` were changed on purpose.
        rows: [M] int64, sample i is ``images[rows[i]]``; None: it is ``images[i]``, and S = M.
        checks: [S] CRC-32 of the bytes of each of the images, where they come from a file that may change.
        origin: where this part was taken from, in words, unless that is what everybody expects.

    Raises:
        ValueError: a shape or dtype does not fit, a label is no class, an index appears twice, a row is not
            in the store, or float pixels leave [0, 1].
    """

    images: Tensor | Files
    labels: Tensor
    index: Tensor
    num_classes: int
    name: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    true_labels: Tensor | None = None
    rows: Tensor | None = None
    checks: Tensor | None = None
    origin: str = ""

    def __post_init__(self) -> None:
        where = f"data set {self.name}"
        if isinstance(self.images, Tensor) and (
            self.images.dim() != 4 or self.images.dtype not in (torch.uint8, torch.float32)
        ):
            kind = f"{list(self.images.shape)} {self.images.dtype}"
            raise ValueError(f"{where}: images must be [M, C, H, W] uint8 or float32, got {kind}")
        count = len(self.images) if self.rows is None else len(self.rows)
        for name in ("labels", "index", "rows"):
            values: Tensor | None = getattr(self, name)
            if values is not None and (values.shape != (count,) or values.dtype != torch.int64):
                got = f"{list(values.shape)} {values.dtype}"
                raise ValueError(f"{where}: {name} must be [{count}] int64, got {got}")
        for name, wanted in (
            ("mean", self.channels),
            ("std", self.channels),
            ("class_names", self.num_classes),
        ):
            if len(getattr(self, name)) != wanted:
                raise ValueError(f"{where}: {name} needs {wanted} entries, got {len(getattr(self, name))}")
        if count:
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
        if self.rows is not None:
            low, high = (int(value) for value in self.rows.aminmax())
            if low < 0 or high >= len(self.images):
                raise ValueError(f"{where}: rows leave [0, {len(self.images)}), the images there are")
        if isinstance(self.images, Tensor) and self.images.dtype == torch.float32:
            least, most = (float(value) for value in self.images.aminmax())
            if not (least >= -_TOLERANCE and most <= 1.0 + _TOLERANCE):
                raise ValueError(
                    f"{where}: pixels in [{least:.4g}, {most:.4g}], outside [0, 1]: scale them, "
                    "and leave the normalisation to the model"
                )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        """Channels of an image; files are decoded to three."""
        return self.images.shape[1] if isinstance(self.images, Tensor) else 3

    @property
    def image_size(self) -> int:
        """Width of an image in pixels."""
        return self.images.shape[-1] if isinstance(self.images, Tensor) else self.images.size

    @property
    def nbytes(self) -> int:
        """Bytes of the images of this part, decoded."""
        if isinstance(self.images, Tensor):
            return len(self) * self.images[:1].nbytes
        return len(self) * 3 * self.images.size**2

    @property
    def store(self) -> Tensor:
        """The images as loaders gather them: bytes as a view [S, H, W, C], floats [S, C, H, W].

        Raises:
            TypeError: the images are files.
        """
        if not isinstance(self.images, Tensor):
            raise TypeError(f"data set {self.name}: the images are files, not in memory")
        return self.images.permute(0, 2, 3, 1) if self.images.dtype == torch.uint8 else self.images

    def stored(self, where: Tensor) -> Tensor:
        """The rows of the store that hold some samples, [N] int64.

        Args:
            where: [N] int64, the places of the samples in this part.
        """
        return where if self.rows is None else self.rows[where]

    def check(self, where: Tensor) -> None:
        """Raise ValueError where one of some samples is not as its checksum says; without checksums none is.

        Args:
            where: [N] int64 on the CPU, the places of the samples in this part.
        """
        if self.checks is None:
            return
        rows, store = self.stored(where), self.store.numpy()
        for row, wanted in zip(rows.tolist(), self.checks[rows].tolist(), strict=True):
            if zlib.crc32(store[row]) != wanted:
                raise ValueError(
                    f"data set {self.name}: image {row} of the cache has changed since it was written; "
                    "delete that folder and run bat-fast prepare again"
                )

    def part(self, where: Tensor) -> Source:
        """Some samples of this part; the store is shared.

        Args:
            where: [N] int64, their places in this part.
        """
        true = None if self.true_labels is None else self.true_labels[where]
        return replace(
            self,
            labels=self.labels[where],
            index=self.index[where],
            true_labels=true,
            rows=self.stored(where),
        )


class Shape(NamedTuple):
    """Classes and image size of a data set; images are square."""

    num_classes: int
    in_channels: int
    image_size: int


class Splits(NamedTuple):
    """The three parts of a data set; no sample is in two of them."""

    train: Source
    val: Source
    test: Source


def divide(whole: Source, train: int, val: int, seed: int) -> Splits:
    """The splits of a data set whose training samples come first and whose test samples follow.

    Args:
        whole: all samples.
        train: how many of them are for training.
        val: how many of those validate instead: the same share of each class.
        seed: which ones validate.

    Raises:
        ValueError: ``val`` is not in [0, train).
    """
    rest, held = stratified(whole.labels[:train], val, seed)
    test = torch.arange(train, len(whole))
    return Splits(whole.part(rest), whole.part(held), whole.part(test))


def pixel_stats(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of pixels scaled to [0, 1].

    Args:
        images: [M, C, H, W] uint8, or float32 in [0, 1].
    """
    scale = 255.0 if images.dtype == torch.uint8 else 1.0
    planes = [images[:, channel].double() / scale for channel in range(images.shape[1])]
    means = tuple(float(plane.mean()) for plane in planes)
    return means, tuple(float(plane.std(correction=0)) for plane in planes)


def sampled_stats(
    images: Tensor | Files, rows: Tensor, most: int = 5000
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """`pixel_stats` of some of ``rows``, evenly spread: a large set need not be read as a whole.

    With 5000 images the error of a mean is about 0.003, a hundredth of the standard deviation.

    Args:
        images: [S, C, H, W] uint8, or float32 in [0, 1]; or S files, of which broken ones are left out.
        rows: [M] int64.
        most: how many images.

    Raises:
        ValueError: none of the files can be decoded.
    """
    some = rows[torch.linspace(0, len(rows) - 1, min(len(rows), most)).long()]
    if isinstance(images, Tensor):
        return pixel_stats(images[some])
    pixels, failed = decode_rows(images, some.tolist())
    kept = [place for place in range(len(some)) if place not in failed]
    if not kept:
        raise ValueError(f"{next(iter(failed.values()))}; restore the files: none of {len(some)} can be read")
    return pixel_stats(pixels[kept].permute(0, 3, 1, 2))
