"""The loader that decodes with NVIDIA DALI: threads on the CPU, the hardware decoder on a GPU."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack
from torch import Tensor

from bat_fast.data.augment import windows
from bat_fast.data.files import CENTRE, Files, decode_rows
from bat_fast.data.loaders.base import Loader, Pixels
from bat_fast.data.source import Source

_AHEAD = 3  # batches that DALI works on while one is trained with


def missing() -> str | None:
    """Why DALI cannot be used here, in one line with the fix; None where it can."""
    try:
        import nvidia.dali  # noqa: F401
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("nvidia"):
            return 'DALI is not installed: pip install "bat_fast[dali]" (CUDA 12: [dali-cu12])'
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


class DaliLoader(Loader):
    """DALI reads and decodes (``mixed`` on a GPU), or moves cached pixels; one kernel of ours augments.

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
        self._running = 0  # batches fed and not yet fetched

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
            batch_size=self.batch_size + 2,  # what is too little for a last step joins the one before
            num_threads=self.workers or os.cpu_count() or 1,
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
        from nvidia.dali import fn, math, types

        if isinstance(self.source.images, Tensor):
            pixels = fn.external_source(name="pixels", dtype=types.UINT8, ndim=3, layout="HWC")
            return pixels.gpu() if decoder == "mixed" else pixels
        files, size = self.source.images, self.source.image_size
        encoded = fn.io.file.read(fn.external_source(name="names", dtype=types.UINT8, ndim=1))
        if files.exact:
            return fn.decoders.image(encoded, device=decoder, output_type=types.RGB)
        height_width = fn.cast(fn.peek_image_shape(encoded)[:2], dtype=types.FLOAT)
        height, width = height_width[0], height_width[1]
        if self.augment.resized_crop:  # `files.crop_of`, in the arithmetic of DALI
            draw = fn.external_source(name="windows", dtype=types.FLOAT, ndim=1)
            area = (0.08 + 0.92 * draw[0]) * height * width
            aspect = math.exp((2.0 * draw[1] - 1.0) * float(np.log(4 / 3)))
            h = math.min(height, math.max(1.0, math.floor(math.sqrt(area / aspect) + 0.5)))
            w = math.min(width, math.max(1.0, math.floor(math.sqrt(area * aspect) + 0.5)))
            top, left = math.floor(draw[2] * (height - h + 1.0)), math.floor(draw[3] * (width - w + 1.0))
        else:
            h = w = math.floor(CENTRE * math.min(height, width) + 0.5)
            top, left = math.floor((height - h) / 2.0), math.floor((width - w) / 2.0)
        start, shape = (fn.cast(fn.stack(a, b), dtype=types.INT32) for a, b in ((top, left), (h, w)))
        cut = fn.decoders.image_slice(
            encoded, device=decoder, output_type=types.RGB, start=start, shape=shape, axis_names="HW"
        )
        return fn.resize(cut, size=[size, size], antialias=True, interp_type=types.INTERP_LINEAR)

    def _pixels(self, parts: Sequence[Tensor]) -> Iterator[Pixels]:
        while self._running:  # an epoch that was left early
            self._fetch()
        parts = self._without_skipped(parts)
        for part in parts[:_AHEAD]:
            self._feed(part)
        for number, part in enumerate(parts):
            store = self._fetch()
            where = part
            if store is None:
                store, where = self._one_by_one(part)
            if number + _AHEAD < len(parts):
                self._feed(parts[number + _AHEAD])
            rows = torch.arange(len(where), device=self.device)
            yield Pixels(store, rows, where.to(self.device, non_blocking=True))

    def _feed(self, part: Tensor) -> None:
        images, stored = self.source.images, self.source.stored(part)
        if isinstance(images, Files):
            # One array, filled up with zeros, which end a file name: a third cheaper than one for each file.
            names = np.array([images.path(row).encode() for row in stored.tolist()])
            self._pipe.feed_input("names", names.view(np.uint8).reshape(len(names), -1))
        else:
            pixels = self.source.store[stored].contiguous()
            self._pipe.feed_input("pixels", pixels.numpy())
        if self.augment.resized_crop:
            drawn = windows(self.source.index[part], seed=self.seed, epoch=self.epoch)
            self._pipe.feed_input("windows", drawn.numpy())
        self._pipe.schedule_run()
        self._running += 1

    def _fetch(self) -> Tensor | None:
        """The next batch [N, H, W, C] uint8 on the device; None where DALI could not decode all of it."""
        self._running -= 1
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

    def _one_by_one(self, part: Tensor) -> tuple[Tensor, Tensor]:
        """Decode a batch with Pillow, which says which file is at fault; the images that are left."""
        files = self.source.images
        if not isinstance(files, Files):
            raise RuntimeError(f"DALI could not move a batch ({self._why}); try --data.loader torch")
        drawn = None
        if self.augment.resized_crop:
            drawn = windows(self.source.index[part], seed=self.seed, epoch=self.epoch).tolist()
        pixels, failed = decode_rows(files, self.source.stored(part).tolist(), drawn)
        self._report({int(part[place]): reason for place, reason in failed.items()})
        if not failed:  # nothing is slow silently
            warnings.warn(f"DALI failed on a batch that Pillow decodes: {self._why}", stacklevel=2)
        kept = [place for place in range(len(part)) if place not in failed]
        return pixels[kept].to(self.device), part[kept]
