"""The data sets: each module of this package is one, by the name of the module.

A new data set is a new module with ``load(seed, ...) -> Splits``, and no list to edit; the other parameters
of ``load`` are its options. The module may further say

- ``SHAPE``, a `bat_fast.data.Shape`: classes and image size, where they do not depend on the files;
- ``TRAIN_IMAGES``: how many images train with the default options, without those that validate;
- ``contents(root)``, a `bat_fast.data.cache.Contents`: the files that ``bat-fast prepare`` decodes once;
  it may take ``size`` and ``exact``, as ``load`` does;
- ``CROPS``, true where images of any size are cropped and resized, unless the option ``exact`` is.

What several data sets share lies beside them, with a leading underscore. Other packages add theirs with an
entry point of the group ``bat_fast.data``, which names such a module.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from bat_fast.config.data import GIVEN as GIVEN
from bat_fast.spelling import hint, meant

_GROUP = "bat_fast.data"


def _own() -> list[str]:
    return [found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_")]


def _foreign() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=_GROUP)}


def names() -> list[str]:
    """The data sets there are, those of other packages last."""
    return list(dict.fromkeys([*_own(), *_foreign()]))


def find(name: str) -> ModuleType:
    """The module of data set ``name``, in any case, with dashes or underscores.

    Raises:
        ValueError: no such data set, two of one name, a module of another package without ``load``, or data
            that only a program has.
    """
    if name == GIVEN:
        raise ValueError(
            "data: given in Python (Trainer(splits=...)), so that they cannot be read again: give the splits "
            "to Trainer as before, or evaluate with bat_fast.evaluate on a loader of yours"
        )
    own, foreign = _own(), _foreign()
    name = meant(name, [*own, *foreign]) or name
    if name in own and name in foreign:
        other = foreign[name].value
        raise ValueError(f"data set {name} exists in bat_fast and in {other}: rename the latter")
    if name not in own and name not in foreign:
        raise ValueError(
            f"there is no data set {name!r}; there are {', '.join(names())}{hint(name, names())}"
        )
    if name in own:
        return import_module(f"{__name__}.{name}")
    module: ModuleType = foreign[name].load()
    if not callable(getattr(module, "load", None)):
        raise ValueError(f"data set {name}: {foreign[name].value} must be a module with load(seed, ...)")
    return module


def can_be_prepared(name: str) -> bool:
    """Whether ``bat-fast prepare`` can decode data set ``name`` once; False too where it cannot be found."""
    try:
        return hasattr(find(name), "contents")
    except (ValueError, ImportError):
        return False
