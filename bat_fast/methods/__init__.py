"""Training methods by name. A method says what the attack climbs and what the weights descend.

A new method is a new module of this package that holds one dataclass derived from
`bat_fast.methods.base.Method`, and no list to edit: its name is that of the module, its options are
the fields of the dataclass. Other packages add theirs with an entry point of the group ``bat_fast.methods``.
"""

from __future__ import annotations

import dataclasses
import pkgutil
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from bat_fast.methods.base import Method, Terms
from bat_fast.methods.options import convert
from bat_fast.spelling import hint, meant

__all__ = ["Method", "Terms", "create", "names"]
_GROUP = "bat_fast.methods"


def _own() -> dict[str, Any]:
    kinds: dict[str, Any] = {}
    for found in pkgutil.iter_modules(__path__):
        module = import_module(f"{__name__}.{found.name}")
        for kind in vars(module).values():
            here = isinstance(kind, type) and kind.__module__ == module.__name__
            if here and issubclass(kind, Method) and dataclasses.is_dataclass(kind):
                if found.name in kinds:
                    raise TypeError(f"{module.__name__} holds two methods: give each a module of its own")
                kinds[found.name] = kind
    return kinds


def _foreign() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=_GROUP)}


def names() -> list[str]:
    """The methods there are, those of other packages last."""
    return list(dict.fromkeys([*_own(), *_foreign()]))


def create(name: str, /, **options: Any) -> Method:
    """The method ``name`` with its options.

    Args:
        name: one of `names`, in any case, with dashes or underscores.
        options: fields of the method; text, as YAML and the command line give it, is converted.

    Raises:
        ValueError: an unknown method or option, a wrong value, or two methods of one name.
    """
    own, foreign = _own(), _foreign()
    name = meant(name, [*own, *foreign]) or name
    if name in own and name in foreign:
        raise ValueError(f"method {name} exists in bat_fast and in {foreign[name].value}: rename the latter")
    if name not in own and name not in foreign:
        raise ValueError(f"there is no method {name!r}; there are {', '.join(names())}{hint(name, names())}")
    kind: Any = own[name] if name in own else foreign[name].load()
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise ValueError(f"method {name}: {foreign[name].value} must be a dataclass")
    if not issubclass(kind, Method):  # written for two functions alone: the rest is the default
        kind = type(kind.__name__, (kind, Method), {"__module__": kind.__module__, "__doc__": kind.__doc__})
    method: Method = kind(**convert(name, kind, options))
    return method
