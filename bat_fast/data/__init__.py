"""Data sets by name, in memory, with pixels in [0, 1].

A new data set is a new module of this package with ``load(seed) -> Splits``, and no list to edit.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from bat_fast.config import Ratio
from bat_fast.data.known import KNOWN, Shape
from bat_fast.data.label_noise import add_label_noise
from bat_fast.data.loader import ResidentLoader
from bat_fast.data.source import Source, Splits

__all__ = ["ResidentLoader", "Shape", "Source", "Splits", "add_label_noise", "load", "names", "shape"]


def names() -> list[str]:
    """The data sets there are."""
    modules = (found.name for found in pkgutil.iter_modules(__path__))
    return [name for name in modules if hasattr(import_module(f"{__name__}.{name}"), "load")]


def shape(name: str) -> Shape:
    """What is known of data set ``name`` without reading it.

    Raises:
        ValueError: no such data set.
    """
    if name not in KNOWN:
        raise ValueError(f"there is no data set {name!r}; there are {', '.join(KNOWN)}")
    return KNOWN[name]


def load(name: str, *, seed: int, label_noise: Mapping[str, Any] | None = None) -> Splits:
    """The train, val and test parts of data set ``name``.

    Args:
        name: one of `names`.
        seed: fixes the split, where the data set does not come with one.
        label_noise: ``kind``, ``rate`` and ``seed`` of `add_label_noise`, for the training split alone.

    Raises:
        ValueError: no such data set.
        ImportError: a package that the data set needs is not installed.
    """
    if name not in names():
        shape(name)
        raise ValueError(
            f"data set {name} cannot be loaded by this version of bat_fast; it loads {', '.join(names())}"
        )
    splits: Splits = import_module(f"{__name__}.{name}").load(seed)
    if label_noise is not None and float(Ratio(label_noise["rate"])):
        splits = splits._replace(train=add_label_noise(splits.train, **label_noise))
    return splits
