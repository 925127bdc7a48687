"""The data sets: each module of this package is one, by the name of the module.

A new data set is a new module with ``load(seed, ...) -> Splits``, and no list to edit; the other parameters
of ``load`` are its options. The module may further say

- ``SHAPE``, a `bat_fast.data.Shape`: classes and image size, where they do not depend on the files;
- ``TRAIN_IMAGES``: how many images train with the default options, without those that validate.

What several data sets share lies beside them, with a leading underscore.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import ModuleType


def names() -> list[str]:
    """The data sets there are."""
    return [found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_")]


def find(name: str) -> ModuleType:
    """The module of data set ``name``.

    Raises:
        ValueError: no such data set.
    """
    if name not in names():
        raise ValueError(f"there is no data set {name!r}; there are {', '.join(names())}")
    return import_module(f"{__name__}.{name}")
