"""The loader of a split that lies as a whole on the training device."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from bat_fast.data.files import Files, decode_rows
from bat_fast.data.loaders.base import Loader, Pixels
from bat_fast.data.source import Source
from bat_fast.device import cores


class ResidentLoader(Loader):
    """Copies the split to the device once, so that no batch waits for the host; one kernel makes a batch.

    On the CPU a set in memory (or memory-mapped) is used where it lies. Files are decoded once, at the start.
    Arguments and errors are those of `Loader`.
    """

    kind = "resident"

    def __init__(self, source: Source, batch_size: int, **options: Any) -> None:
        super().__init__(source, batch_size, **options)
        every = torch.arange(len(source))
        if isinstance(source.images, Files):
            images, every = self._decode(source.images)
        else:
            images = source.store
            if source.rows is not None and self.device.type != "cpu":
                images = images[source.rows]
            elif source.rows is not None:
                every = source.rows
        self._images, self._rows = images.contiguous().to(self.device), every.to(self.device)

    def _decode(self, files: Files) -> tuple[Tensor, Tensor]:
        """All images [M, H, W, 3] and their rows [M], -1 for those that are left out."""
        if self.augment.resized_crop:
            raise ValueError("data.augment.resized_crop needs --data.loader dali or torch")
        rows = self.source.stored(torch.arange(self.num_samples)).tolist()
        began = time.perf_counter()
        with ThreadPoolExecutor(self.workers or cores()) as pool:
            images, failed = decode_rows(files, rows, pool=pool)
        self._report(failed)
        if time.perf_counter() - began > 5:  # nothing is slow silently
            seconds = time.perf_counter() - began
            print(
                f"decoded {len(rows)} files in {seconds:.0f} s; bat-fast prepare keeps them", file=sys.stderr
            )
        kept = torch.arange(self.num_samples)
        kept[list(failed)] = -1
        return images, kept

    def _pixels(self, parts: Sequence[Tensor]) -> Iterator[Pixels]:
        if not parts:
            return
        parts = self._without_skipped(parts)
        places = torch.cat(parts).to(self.device)  # one transfer for the epoch
        for where in places.split([len(part) for part in parts]):
            yield Pixels(self._images, self._rows[where], where)
