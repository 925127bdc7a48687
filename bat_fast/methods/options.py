"""Options of a method: from YAML or the command line to the types of its dataclass."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, get_type_hints

from bat_fast.spelling import hint
from bat_fast.values import converted


def convert(method: str, kind: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """``options`` with the types that the fields of the dataclass ``kind`` are annotated with.

    Args:
        method: name of the method, for the messages.
        kind: dataclass of the method; its fields are its options.
        options: values as written: numbers may be text, and fractions (``1/4``).

    Raises:
        ValueError: an option that the method does not have, or a value that is not of its type.
    """
    hints = get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind) if field.init]
    for name in options:
        if name not in known:
            has = ", ".join(known) or "none"
            raise ValueError(f"method {method} has no option {name!r}; it has {has}{hint(name, known)}")
    return {name: converted(f"{method}.{name}", hints[name], value) for name, value in options.items()}


def choice(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """``value``, if it is one of ``allowed``.

    Raises:
        ValueError: it is not.
    """
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, got {value!r}")
    return value


def at_least(name: str, value: float, low: float, *, open_end: bool = False) -> None:
    """Raise ValueError unless ``value`` is a finite number >= ``low`` (> ``low`` if ``open_end``)."""
    number = isinstance(value, (int, float)) and math.isfinite(value)
    if not number or value < low or (open_end and value == low):
        sign = ">" if open_end else ">="
        raise ValueError(f"{name} must be a finite number {sign} {low:g}, got {value!r}")
