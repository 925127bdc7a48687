"""Batches of a split: the one contract of all loaders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from bat_fast.batch import Batch
from bat_fast.data.augment import Augment
from bat_fast.data.extra import ExtraData
from bat_fast.data.files import cure
from bat_fast.data.order import count_steps, epoch_order, shares
from bat_fast.data.source import Source
from bat_fast.device import layout

NO_AUGMENT = Augment()


class Pixels(NamedTuple):
    """The images of one batch before augmentation, on the device.

    Args:
        store: [S, H, W, C] uint8, or [S, C, H, W] float32.
        rows: [N] int64, which images of the store.
        where: [N] int64, places of the samples in the split.
    """

    store: Tensor
    rows: Tensor
    where: Tensor


class Loader(ABC):
    """Iterates over a split; every loader gives the same batches, by its own way to the pixels.

    The order of an epoch depends on (seed, epoch) alone and is shared by all ranks: together they see each
    sample exactly once, in the same number of batches (`bat_fast.data.order.shares`). Augmentation is keyed
    by (seed, epoch, sample id). So neither the device, nor the batch size, nor the number of ranks, nor
    what ran before changes a sample, and any epoch can be replayed after `set_epoch`. The last batch may
    be smaller, but no sample is left out, and with ``shuffle`` none is alone: it joins the batch before.

    Args:
        source: the split.
        batch_size: images in a batch of all ranks together, >= world_size.
        shuffle: a new order in every epoch; otherwise that of the source.
        seed: any integer.
        device: where the batches are.
        augment: of the images; none by default.
        rank, world_size: which of how many processes this one is.
        channels_last: memory format of the batches; None is that of `bat_fast.device.layout`.
        workers: threads or processes that decode; None takes one for each core.
        on_corrupt: ``"error"``, or ``"skip"``: an image that cannot be decoded is left out and counted.
        extra: images that are added to every batch, beyond ``batch_size``, in shares too.

    Raises:
        ValueError: an argument is out of range, the split is empty or has fewer samples than ranks, or the
            augmentation does not go with the images.
    """

    kind: str

    def __init__(
        self,
        source: Source,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
        device: str | torch.device = "cpu",
        augment: Augment = NO_AUGMENT,
        rank: int = 0,
        world_size: int = 1,
        channels_last: bool | None = None,
        workers: int | None = None,
        on_corrupt: str = "error",
        extra: ExtraData | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if not len(source):
            raise ValueError(f"data set {source.name}: the split is empty")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in [0, {world_size}), got {rank}")
        if batch_size < world_size:
            raise ValueError(f"batch_size {batch_size} leaves some of {world_size} ranks without an image")
        if len(source) < world_size:
            raise ValueError(f"data set {source.name}: {len(source)} samples for {world_size} ranks")
        if on_corrupt not in ("error", "skip"):
            raise ValueError(f"data.on_corrupt must be error or skip, got {on_corrupt!r}")
        self._check_augment(source, augment)
        self.source, self.batch_size, self.shuffle, self.seed = source, batch_size, shuffle, seed
        self.device, self.augment = torch.device(device), augment
        usual = layout(self.device) is torch.channels_last
        self.channels_last = usual if channels_last is None else channels_last
        self.rank, self.world_size = rank, world_size
        self.workers, self.on_corrupt, self.extra = workers, on_corrupt, extra
        self.num_samples = len(source)
        self.epoch = 0
        self.position = 0  # batches given in the running epoch
        self.skipped: dict[int, str] = {}  # place in the split -> why it cannot be decoded
        self._start = 0
        self._least = (
            min(2, batch_size // world_size) if shuffle else 1
        )  # who trains may need statistics of a batch
        self._checked = torch.zeros(len(source), dtype=torch.bool)
        self._labels = source.labels.to(self.device)
        self._index = source.index.to(self.device)

    def _check_augment(self, source: Source, augment: Augment) -> None:
        if isinstance(source.images, Tensor) and source.images.dtype == torch.float32 and augment.any:
            raise ValueError(f"data.augment: {source.name} is not of bytes; its images cannot be augmented")
        stretch = isinstance(source.images, Tensor) or source.images.exact
        if augment.resized_crop and stretch:
            raise ValueError(
                f"data.augment.resized_crop: the images of {source.name} have the training size already; "
                "use data.augment.pad, or, where they are those of a cache, --data.options.cache false"
            )
        if augment.rand_augment and self.kind != "torch":
            raise ValueError("data.augment.rand_augment needs --data.loader torch")

    def __len__(self) -> int:
        """Number of batches in an epoch, the same on every rank."""
        return count_steps(self.num_samples, self.batch_size, self.world_size, self._least)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""
        self.epoch, self.position, self._start = epoch, 0, 0

    def order(self, epoch: int) -> Tensor:
        """The places of the split in the order of ``epoch``, [M] int64 on the CPU, of all ranks together."""
        if not self.shuffle:
            return torch.arange(self.num_samples)
        return epoch_order(self.num_samples, self.seed, epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is: the epoch, and the batches it has given. All chance follows from that."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration give the batches that were left."""
        self.set_epoch(state["epoch"])
        self.position = self._start = state["position"]

    def __iter__(self) -> Iterator[Batch]:
        parts = shares(self.order(self.epoch), self.batch_size, self.rank, self.world_size, self._least)
        start, self._start = self._start, 0
        self.position = start
        for part, pixels in zip(parts[start:], self._pixels(parts[start:]), strict=True):
            self._check(part)
            if not len(pixels.where):
                self._nothing_left()
            self.position += 1
            index = self._index[pixels.where]
            batch = Batch(self._finish(pixels, index), self._labels[pixels.where], index)
            if self.extra is not None:
                step = self.epoch * len(self) + self.position - 1
                batch = self.extra.join(batch, self.rank, self.world_size, epoch=self.epoch, step=step)
            yield batch

    def _check(self, part: Tensor) -> None:
        """Compare the images of a batch with their checksums, each once, while the device computes."""
        if self.source.checks is not None:
            fresh = part[~self._checked[part]]
            self.source.check(fresh)
            self._checked[fresh] = True

    def _finish(self, pixels: Pixels, index: Tensor) -> Tensor:
        if pixels.store.dtype == torch.float32:
            x = pixels.store[pixels.rows]
            return x.contiguous(memory_format=torch.channels_last) if self.channels_last else x
        key = {"seed": _int64(self.seed), "epoch": self.epoch}
        return self.augment(pixels.store, pixels.rows, index, channels_last=self.channels_last, **key)

    @abstractmethod
    def _pixels(self, parts: Sequence[Tensor]) -> Iterator[Pixels]:
        """The images of some batches, in order.

        Args:
            parts: for each batch [N] int64 on the CPU, places of the samples in the split.
        """

    def _without_skipped(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """``parts`` without the images that are known to be broken."""
        if not self.skipped:
            return list(parts)
        lost = torch.tensor(sorted(self.skipped))
        kept = [part[~torch.isin(part, lost)] for part in parts]
        if any(len(part) == 0 for part in kept):
            self._nothing_left()
        return kept

    def _nothing_left(self) -> NoReturn:
        raise ValueError(
            f"data set {self.source.name}: every image of a batch is left out ({len(self.skipped)} so far); "
            "repair the files or take a larger batch_size"
        )

    def _report(self, failed: dict[int, str]) -> None:
        """Raise for images that cannot be decoded (place in the split -> reason), or count them."""
        if failed and self.on_corrupt == "error":
            raise ValueError(next(iter(failed.values())) + cure("--data.on_corrupt"))
        self.skipped |= failed


def _int64(seed: int) -> int:
    """Any integer as one of 64 bits with a sign."""
    return (seed + (1 << 63)) % (1 << 64) - (1 << 63)
