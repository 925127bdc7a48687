"""The loader that decodes with NVIDIA DALI: threads on the CPU, the hardware decoder on a GPU."""

from __future__ import annotations

import gc
import os
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.utils.dlpack
from torch import Tensor

from bat_fast._install import install
from bat_fast.data.augment import windows
from bat_fast.data.files import Decoding, Files, crop_of, decode_rows, start_decoding
from bat_fast.data.loaders.base import Loader, Pixels
from bat_fast.data.source import Source
from bat_fast.device import cores

_AHEAD = 3  # batches that DALI works on while one is trained with
_ODD = -1  # in place of a size: only Pillow gives the pixels of this file


def missing() -> str | None:
    """Why DALI cannot be used here, in one line with the fix; None where it can."""
    try:
        import nvidia.dali  # noqa: F401
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("nvidia"):
            old = (torch.version.cuda or "").startswith("12.")
            kind = ("nvidia-dali-cuda120", "dali-cu12") if old else ("nvidia-dali-cuda130", "dali")
            return f"DALI is not installed: {install(*kind)}"
        return f"DALI cannot be imported ({' '.join(str(error).split())})"
    return None


def version() -> str:
    """The version of DALI, or why it cannot be used."""
    reason = missing()
    if reason:
        return reason
    import nvidia.dali

    return str(nvidia.dali.__version__)


@cache
def _spare_forks() -> None:
    """Keep the pipelines of this process from being collected in a forked one.

    There their threads do not exist, and waiting for them never ends: seen in workers of a DataLoader.
    """
    os.register_at_fork(after_in_child=gc.freeze)


class _Asked(NamedTuple):
    """A batch that is on its way.

    Args:
        part: [N] int64, places of the samples in the split.
        plain: [N] bool, which of them DALI decodes.
        others: the rest, with Pillow; None where there is none.
    """

    part: Tensor
    plain: Tensor
    others: Decoding | None


class DaliLoader(Loader):
    """DALI reads and decodes (``mixed`` on a GPU), or moves cached pixels; one kernel of ours augments.

    DALI gets the files that it decodes to the bytes of Pillow (`bat_fast.data.headers`), which is seen in
    their headers when they first come; the others are decoded by Pillow, in threads, meanwhile. What is cut
    out of an image is `bat_fast.data.files.crop_of` for both.

    The order is not DALI's: every batch is fed by name, so an epoch holds each sample exactly once, and
    the pipeline has no state that a checkpoint would have to keep.
    Arguments and errors are those of `Loader`.

    Raises:
        ImportError: DALI is not installed; the message has the command.
    """

    kind = "dali"

    def __init__(self, source: Source, batch_size: int, **options: Any) -> None:
        super().__init__(source, batch_size, **options)
        reason = missing()
        if reason:
            raise ImportError(reason)
        if isinstance(source.images, Tensor) and source.images.dtype != torch.uint8:
            raise ValueError(f"data set {source.name} is not of bytes: --data.loader resident or torch")
        self._pipe = self._build()
        self._why = "the images differ in size"  # the last batch that DALI could not give
        self._asked: deque[_Asked] = deque()  # batches fed and not yet fetched
        if isinstance(source.images, Files):
            self._sizes = np.zeros((len(source.images), 2), np.int32)  # height, width; 0 is not yet known
            self._pool = ThreadPoolExecutor(self.workers or cores())

    def _build(self) -> Any:
        from nvidia.dali import Pipeline

        _spare_forks()
        cuda = self.device.type == "cuda"
        number = (
            (self.device.index if self.device.index is not None else torch.cuda.current_device())
            if cuda
            else None
        )
        pipe = Pipeline(
            batch_size=-(-self.batch_size // self.world_size)
            + 2,  # what is too little at the end joins another
            num_threads=self.workers or cores(),
            device_id=number,
            exec_dynamic=True,  # outlives a file that cannot be decoded, and its outputs are ours to keep
            prefetch_queue_depth=1,  # more would run ahead of what is fed; `_AHEAD` does it
        )
        with pipe:
            pipe.set_outputs(self._graph("mixed" if cuda else "cpu"))
        pipe.build()
        return pipe

    def _graph(self, decoder: str) -> Any:
        """The images as uint8 NHWC."""
        from nvidia.dali import fn, types

        if isinstance(self.source.images, Tensor):
            pixels = fn.external_source(name="pixels", dtype=types.UINT8, ndim=3, layout="HWC")
            return pixels.gpu() if decoder == "mixed" else pixels
        files, size = self.source.images, self.source.image_size
        encoded = fn.io.file.read(fn.external_source(name="names", dtype=types.UINT8, ndim=1))
        if files.exact:
            return fn.decoders.image(encoded, device=decoder, output_type=types.RGB)
        start, shape = (fn.external_source(name=n, dtype=types.INT32, ndim=1) for n in ("start", "shape"))
        cut = fn.decoders.image_slice(
            encoded, device=decoder, output_type=types.RGB, start=start, shape=shape, axis_names="HW"
        )
        return fn.resize(cut, size=[size, size], antialias=True, interp_type=types.INTERP_LINEAR)

    def _pixels(self, parts: Sequence[Tensor]) -> Iterator[Pixels]:
        while self._asked:  # an epoch that was left early
            self._fetch()
        parts = self._without_skipped(parts)
        for part in parts[:_AHEAD]:
            self._feed(part)
        for number, part in enumerate(parts):
            store, failed = self._fetch()
            self._report({int(part[place]): reason for place, reason in failed.items()})
            if number + _AHEAD < len(parts):
                self._feed(parts[number + _AHEAD])
            rows, where = torch.arange(len(part), device=self.device), part
            if failed:
                kept = torch.tensor([place not in failed for place in range(len(part))])
                rows, where = rows[kept.to(self.device)], part[kept]
            yield Pixels(store, rows, where.to(self.device, non_blocking=True))

    def _feed(self, part: Tensor) -> None:
        images, stored = self.source.images, self.source.stored(part)
        if not isinstance(images, Files):
            pixels = self.source.store[stored].contiguous()
            self._pipe.feed_input("pixels", pixels.numpy())
            self._pipe.schedule_run()
            self._asked.append(_Asked(part, torch.ones(len(part), dtype=torch.bool), None))
            return
        drawn = None
        if self.augment.resized_crop:
            drawn = windows(self.source.index[part], seed=self.seed, epoch=self.epoch)
        plain, others = torch.from_numpy(self._look(images, stored.numpy())), None
        if not plain.all():
            cuts = None if drawn is None else drawn[~plain].tolist()
            others = start_decoding(images, stored[~plain].tolist(), cuts, self._pool)
        if plain.any():
            self._feed_files(images, stored[plain].tolist(), None if drawn is None else drawn[plain].tolist())
        self._asked.append(_Asked(part, plain, others))

    def _look(self, files: Files, stored: np.ndarray) -> np.ndarray:
        """Which of some rows DALI decodes, [N] bool; looks into files that come for the first time."""
        for row in stored[self._sizes[stored, 0] == 0].tolist():
            self._sizes[row] = files.plain_size(row) or _ODD
        return self._sizes[stored, 0] != _ODD

    def _feed_files(self, files: Files, rows: list[int], drawn: list[list[float]] | None) -> None:
        # One array, filled up with zeros, which end a file name: a third cheaper than one for each file.
        names = np.array([files.path(row).encode() for row in rows])
        self._pipe.feed_input("names", names.view(np.uint8).reshape(len(names), -1))
        if not files.exact:
            crops = [
                crop_of(height, width, drawn[place] if drawn else None)
                for place, (height, width) in enumerate(self._sizes[rows].tolist())
            ]
            boxes = np.array(crops, np.int32)  # top, left, height, width
            self._pipe.feed_input("start", boxes[:, :2].copy())
            self._pipe.feed_input("shape", boxes[:, 2:].copy())
        self._pipe.schedule_run()

    def _fetch(self) -> tuple[Tensor, dict[int, str]]:
        """The next batch, [N, H, W, C] uint8 on the device, and why images of it are missing, by place."""
        asked = self._asked.popleft()
        found = self._outputs() if asked.plain.any() else None
        if found is None and asked.plain.any():
            return self._one_by_one(asked.part)
        if asked.others is None:
            assert found is not None  # a batch is not empty
            return found, {}
        pixels, failed = asked.others.result()
        own, places = (mask.nonzero().flatten() for mask in (asked.plain, ~asked.plain))
        failed = {int(places[place]): reason for place, reason in failed.items()}
        if found is None:
            return pixels.to(self.device), failed
        store = found.new_empty((len(asked.part), *found.shape[1:]))
        store[own.to(self.device)] = found
        store[places.to(self.device)] = pixels.to(self.device)
        return store, failed

    def _outputs(self) -> Tensor | None:
        """What DALI was fed, [N, H, W, C] uint8 on the device; None where it could not decode all of it."""
        stream = torch.cuda.current_stream(self.device) if self.device.type == "cuda" else None
        try:
            (output,) = self._pipe.outputs(cuda_stream=stream)
            if not output.is_dense_tensor():
                return None  # files of several sizes
            found = torch.utils.dlpack.from_dlpack(output.as_tensor())
        except RuntimeError as error:
            self._why = " ".join(str(error).split())
            return None
        return found if found.shape[1] == self.source.image_size == found.shape[2] else None

    def _one_by_one(self, part: Tensor) -> tuple[Tensor, dict[int, str]]:
        """Decode a batch with Pillow, which says which file is at fault."""
        files = self.source.images
        if not isinstance(files, Files):
            raise RuntimeError(f"DALI could not move a batch ({self._why}); try --data.loader torch")
        drawn = None
        if self.augment.resized_crop:
            drawn = windows(self.source.index[part], seed=self.seed, epoch=self.epoch).tolist()
        pixels, failed = decode_rows(files, self.source.stored(part).tolist(), drawn)
        if not failed:  # nothing is slow silently
            warnings.warn(f"DALI failed on a batch that Pillow decodes: {self._why}", stacklevel=2)
        return pixels.to(self.device), failed
