"""The loader that works everywhere: torch's DataLoader."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bat_fast._random import generator
from bat_fast.data.augment import windows
from bat_fast.data.files import Files, decode_rows
from bat_fast.data.loaders.base import Loader, Pixels
from bat_fast.data.source import Source
from bat_fast.device import cores


class TorchLoader(Loader):
    """Worker processes gather or decode whole batches of bytes; the device augments them.

    Arguments and errors are those of `Loader`; ``workers=0`` decodes in this process.
    """

    kind = "torch"

    def __init__(self, source: Source, batch_size: int, **options: Any) -> None:
        super().__init__(source, batch_size, **options)
        self._asked: list[tuple[int, Tensor]] = []  # epoch and places of every batch of the running epoch
        self._loader = self._hire()

    def _hire(self) -> DataLoader[tuple[Tensor, dict[int, str]]]:
        workers = cores() if self.workers is None else self.workers
        if isinstance(self.source.images, Tensor) and self.workers is None:
            workers = 0  # a gather is faster than handing its result to another process
        return DataLoader(
            _Parts(self.source, self.augment.resized_crop, self.augment.rand_augment, self.seed),
            sampler=self._asked,  # type: ignore[arg-type]  # a sample of the Dataset is a batch of ours
            batch_size=None,
            generator=torch.Generator(),  # workers take seeds from it, not from that of the training
            num_workers=workers,
            prefetch_factor=2 if workers else None,
            persistent_workers=workers > 0,
            worker_init_fn=_ignore_ctrl_c,
            pin_memory=self.device.type == "cuda",
        )

    def _pixels(self, parts: Sequence[Tensor]) -> Iterator[Pixels]:
        self._asked[:] = [(self.epoch, part) for part in parts]
        if not parts:
            return
        try:
            stream = iter(self._loader)
            _name_the_dead()
            for part, (images, failed) in zip(parts, stream, strict=True):
                yield self._batch(part, images, failed)
        except BaseException as error:  # an epoch that is left early: its workers would wait for a listener
            self._loader = self._hire()
            # A worker that is killed while it hands over a tensor is seen by the broken connection alone.
            broken = isinstance(error, (EOFError, ConnectionError))
            if broken or (isinstance(error, RuntimeError) and "DataLoader worker" in str(error)):
                raise RuntimeError(_ended(str(error))) from error
            raise

    def _batch(self, part: Tensor, images: Tensor, failed: dict[int, str]) -> Pixels:
        self._report({int(part[place]): reason for place, reason in failed.items()})
        store = images.to(self.device, non_blocking=True)
        if not failed:
            return Pixels(store, torch.arange(len(part), device=self.device), self._sent(part))
        kept = torch.tensor([place for place in range(len(part)) if place not in failed], dtype=torch.int64)
        return Pixels(store, self._sent(kept), self._sent(part[kept]))

    def _sent(self, places: Tensor) -> Tensor:
        """``places`` on the device, without a wait for the step that it computes."""
        if self.device.type == "cuda":  # from memory that is not pinned a copy waits
            places = places.pin_memory()
        return places.to(self.device, non_blocking=True)


def _ignore_ctrl_c(_: int) -> None:
    """The terminal interrupts all processes, but the trainer finishes its step first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Named:
    """torch's handler of SIGCHLD, whose error arrives wherever the program is, with our words for it."""

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self.handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        try:
            self.handler(number, frame)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise RuntimeError(_ended(str(error))) from error


def _name_the_dead() -> None:
    """Put `_Named` around torch's handler, which the first loader with workers has installed."""
    handler = signal.getsignal(signal.SIGCHLD)
    of_torch = str(getattr(handler, "__module__", "")).startswith("torch.utils.data")
    if of_torch and callable(handler) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, _Named(handler))


def _ended(message: str) -> str:
    """What torch says of a worker that is gone, in one line with what to do."""
    how = re.search(r"killed by signal: (\w+)", message)
    who = re.search(r"\(pid(?:\(s\))? ([\d, ]+)\)", message)
    name = f", process {who[1]}" if who else ""
    way = f"was ended by the system ({how[1]})" if how else "has ended"
    return (
        f"a process that prepares images (--data.loader torch{name}) {way}, mostly for want of memory: take "
        "fewer --data.workers, or 0 to see its error here; then go on with --resume"
    )


class _Parts(Dataset[tuple[Tensor, dict[int, str]]]):
    """Maps (epoch, places of the split [N]) to images, [N, H, W, C] uint8 or [N, C, H, W] float32."""

    def __init__(self, source: Source, crop: bool, operations: int, seed: int) -> None:
        self.source, self.crop, self.operations, self.seed = source, crop, operations, seed

    def __getitem__(self, asked: tuple[int, Tensor]) -> tuple[Tensor, dict[int, str]]:
        epoch, part = asked
        images, stored = self.source.images, self.source.stored(part)
        ids = self.source.index[part]
        failed: dict[int, str] = {}
        if isinstance(images, Files):
            drawn = windows(ids, seed=self.seed, epoch=epoch).tolist() if self.crop else None
            pixels, failed = decode_rows(images, stored.tolist(), drawn)
        else:
            pixels = self.source.store[stored].contiguous()
        return self._rand_augment(pixels, ids, epoch) if self.operations else pixels, failed

    def _rand_augment(self, pixels: Tensor, ids: Tensor, epoch: int) -> Tensor:
        from torchvision.transforms.v2 import RandAugment

        change = RandAugment(num_ops=self.operations, magnitude=9)
        with torch.random.fork_rng(devices=[]):
            for row, sample in enumerate(ids.tolist()):
                key = generator("rand_augment", self.seed, epoch, sample).initial_seed()
                torch.manual_seed(key)
                pixels[row] = change(pixels[row].permute(2, 0, 1)).permute(1, 2, 0)
        return pixels
