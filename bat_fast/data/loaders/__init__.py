"""The loaders, and which of them suits a split on a device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bat_fast.data.augment import Augment
from bat_fast.data.loaders.base import NO_AUGMENT, Loader
from bat_fast.data.loaders.dali import DaliLoader, missing
from bat_fast.data.loaders.resident import ResidentLoader
from bat_fast.data.loaders.workers import TorchLoader
from bat_fast.data.sets import can_be_prepared
from bat_fast.data.source import Source

_LOADERS: dict[str, type[Loader]] = {
    loader.kind: loader for loader in (ResidentLoader, DaliLoader, TorchLoader)
}
_SHARE = 0.4  # of the free memory of a GPU that a training set may take


def choose(source: Source, device: str, augment: Augment = NO_AUGMENT) -> tuple[str, str]:
    """The fastest loader for a split, and why."""
    if augment.rand_augment:
        return "torch", "RandAugment runs in its workers"
    if isinstance(source.images, Tensor):
        if torch.device(device).type == "cpu":
            return "resident", "the set is in memory"
        free = torch.cuda.mem_get_info(device)[0]
        size = f"{source.nbytes / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free"
        if source.nbytes <= _SHARE * free:
            return "resident", f"the set fits on the GPU ({size})"
        if source.images.dtype != torch.uint8:
            return "torch", f"the set does not fit on the GPU ({size})"
        reason = f"the set does not fit on the GPU ({size})"
    else:
        reason = "the set is image files"
        if can_be_prepared(source.name):
            reason += f" (bat-fast prepare {source.name.replace('_', '-')} decodes them once)"
        if not source.images.on_disk:
            return "torch", "the set is encoded images in tables, which DALI does not open"
    lacking = missing()
    return ("torch", f"{reason}, and {lacking}") if lacking else ("dali", reason)


def create_loader(source: Source, batch_size: int, *, kind: str = "auto", **options: Any) -> Loader:
    """The loader ``kind`` of a split: ``auto``, ``resident``, ``dali`` or ``torch``.

    Args:
        source: the split.
        batch_size: images in a batch.
        kind: ``auto`` takes the one that `choose` names.
        options: those of `bat_fast.data.Loader`.

    Raises:
        ValueError: an argument is out of range. ImportError: ``dali`` was asked for and is not installed.
    """
    if kind == "auto":
        kind = choose(source, str(options.get("device", "cpu")), options.get("augment", NO_AUGMENT))[0]
    if kind not in _LOADERS:
        raise ValueError(f"data.loader must be auto, {', '.join(_LOADERS)}, got {kind!r}")
    return _LOADERS[kind](source, batch_size, **options)
