"""Data sets by name, in memory, with pixels in [0, 1].

A new data set is a new module of this package with ``load(seed) -> Splits``, and no list to edit.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from bat_fast.data.loader import ResidentLoader
from bat_fast.data.source import Source, Splits

__all__ = ["ResidentLoader", "Source", "Splits", "load", "names"]


def names() -> list[str]:
    """The data sets there are."""
    modules = (found.name for found in pkgutil.iter_modules(__path__))
    return [name for name in modules if hasattr(import_module(f"{__name__}.{name}"), "load")]


def load(name: str, *, seed: int) -> Splits:
    """The train, val and test parts of data set ``name``.

    Args:
        name: one of `names`.
        seed: fixes the split, where the data set does not come with one.

    Raises:
        ValueError: no such data set.
        ImportError: a package that the data set needs is not installed.
    """
    if name not in names():
        raise ValueError(f"there is no data set {name!r}; there are {', '.join(names())}")
    splits: Splits = import_module(f"{__name__}.{name}").load(seed)
    return splits
