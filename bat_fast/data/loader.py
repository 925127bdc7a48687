"""Batches of a split that lies as a whole on the training device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from bat_fast.batch import Batch
from bat_fast.data.source import Source


class ResidentLoader:
    """Iterates over a split that is copied to the device once, so that no batch waits for the host.

    The order of an epoch depends on (seed, epoch) alone, not on the device nor on what ran before: any
    epoch can be replayed after `set_epoch`. The last batch may be smaller; no sample is left out.

    Args:
        source: the split.
        batch_size: images in a batch, >= 1.
        shuffle: a new order in every epoch; otherwise that of the source.
        seed: any integer.
        device: where the batches are.

    Raises:
        ValueError: ``batch_size`` < 1 or an empty split.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
        device: str | torch.device = "cpu",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if not len(source):
            raise ValueError(f"data set {source.name}: the split is empty")
        self.source = source
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.device = torch.device(device)
        self.num_samples = len(source)
        self.epoch = 0
        self._images = source.images.to(self.device)
        self._labels = source.labels.to(self.device)
        self._index = source.index.to(self.device)

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return -(-self.num_samples // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""
        self.epoch = epoch

    def order(self, epoch: int) -> Tensor:
        """The rows of the source in the order of ``epoch``, [M] int64 on the CPU."""
        if not self.shuffle:
            return torch.arange(self.num_samples)
        # torch's CPU generator reads 32 bits of its seed: a hash lets both numbers reach them.
        key = hashlib.sha256(f"{self.seed}/{epoch}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:4], "big"))
        return torch.randperm(self.num_samples, generator=generator)

    def __iter__(self) -> Iterator[Batch]:
        for rows in self.order(self.epoch).to(self.device).split(self.batch_size):
            x = self._images[rows]
            if x.dtype == torch.uint8:
                x = x.float().div_(255.0)
            yield Batch(x, self._labels[rows], self._index[rows])
