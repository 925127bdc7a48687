"""A class by the name of its module or the path of its file."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

from torch import nn


def located(name: str) -> str:
    """``name`` with the path of a file made absolute, so that it is found from anywhere."""
    file, colon, kind = name.rpartition(":")
    return f"{Path(file).resolve()}{colon}{kind}" if file.endswith(".py") else name


def _module(place: str) -> ModuleType:
    if place.endswith(".py"):
        file = Path(place).resolve()
        if not file.is_file():
            raise ValueError(f"model.name: there is no file {file}, which holds the class of the model")
        unique = f"_bat_fast_model_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
        spec = importlib.util.spec_from_file_location(unique, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[unique] = module  # pickling and dataclasses look their module up
        spec.loader.exec_module(module)
        return module
    here = str(Path.cwd())  # where the user's own modules lie; a console script does not look there
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        return import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not place.startswith(error.name):
            raise
        raise ValueError(
            f"model.name: there is no module {place!r}, neither installed nor in {here}; a file is named "
            "path/to/file.py:Class"
        ) from None
    finally:
        if added:
            sys.path.remove(here)


def model_class(place: str, wanted: str) -> type[nn.Module]:
    """The subclass of `torch.nn.Module` called ``wanted``.

    Args:
        place: a module that can be imported, also from the working folder, or the path of a file ``*.py``.
        wanted: name of the class.

    Raises:
        ValueError: there is no such module, file or class, or it is not a module of torch.
    """
    module = _module(place)
    found = getattr(module, wanted, None)
    # Modules alone: the name may come from a file of somebody else's, and must not call just anything.
    if isinstance(found, type) and issubclass(found, nn.Module):
        return found
    there = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module.__name__
    ]
    what = "has no" if found is None else "has something else named"
    raise ValueError(
        f"model.name: {place} {what} {wanted!r}; its model classes: {', '.join(there) or 'none'}"
    )
