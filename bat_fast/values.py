"""From what people write to the types of a dataclass: text, YAML and Python alike. Standard library only."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from bat_fast.ratio import Ratio
from bat_fast.spelling import hint as spelling_hint
from bat_fast.spelling import meant

_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NOTHING = ("null", "none", "~")


class Settings:
    """A base of dataclasses whose values have the types of their fields, however they were written.

    ``place="attack"`` is what messages put before the name of a field: ``attack.eps``.
    """

    _place: ClassVar[str] = ""

    def __init_subclass__(cls, place: str = "") -> None:
        super().__init_subclass__()
        if place:
            cls._place = f"{place}."

    def __post_init__(self) -> None:
        for name, hint in types_of(type(self)).items():
            value = converted(f"{self._place}{name}", hint, getattr(self, name))
            object.__setattr__(self, name, value)  # the dataclasses are frozen


def types_of(kind: type) -> dict[str, Any]:
    """The fields of the dataclass ``kind`` and what each is annotated with."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}  # type: ignore[arg-type]


def converted(name: str, hint: Any, value: Any) -> Any:
    """``value`` as an annotation has it.

    Args:
        name: of the setting, for the message.
        hint: ``int``, ``float``, ``bool``, ``str``, ``Ratio``, a ``Literal``, a union of those, a ``tuple``
            of numbers, a ``dict`` or a class derived from `Settings`. What is none of them stays as it is.
        value: of that type, or text that says it: ``8/255``, ``true``, ``[0.5, 0.75]``; words in any case.

    Raises:
        ValueError: it is none; the message says what would be.
    """
    if isinstance(hint, type) and issubclass(hint, Settings):
        return _settings(name, hint, value)
    try:
        return _converted(hint, value)
    except (ValueError, TypeError):
        near = spelling_hint(value, words_of(hint)) if isinstance(value, str) else ""
        raise ValueError(f"{name} must be {describe(hint)}, got {value!r}{near}") from None


def describe(hint: Any) -> str:
    """What an annotation takes, in words: ``a whole number``, ``one of linf, l2``."""
    words, kinds = words_of(hint), [_KINDS[member] for member in _members(hint) if member in _KINDS]
    if words == ["true", "false"]:
        kinds.append("true or false")
    elif words:
        kinds.append(f"one of {', '.join(words)}" if len(words) > 1 else words[0])
    if get_origin(hint) is tuple:
        kinds.append("a list of numbers such as [0.5, 0.75]")
    if get_origin(hint) is dict:
        kinds.append("names with values, such as {name: value}")
    return " or ".join(kinds)


def words_of(hint: Any) -> list[str]:
    """The words among what an annotation takes: ``linf`` and ``l2``, ``true`` and ``false``, ``null``."""
    words: list[str] = []
    for member in _members(hint):
        if get_origin(member) is Literal:
            words += map(str, get_args(member))
        words += ["true", "false"] if member is bool else ["null"] if member is NoneType else []
    return words


_FRACTION = "a number or a fraction such as 8/255"
_KINDS = {int: "a whole number", float: "a number", str: "text", Ratio: _FRACTION}


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _converted(hint: Any, value: Any) -> Any:
    members = _members(hint)
    if len(members) > 1:
        return _any_of(members, value)
    if get_origin(hint) is Literal:
        return _literal(get_args(hint), value)
    if get_origin(hint) is tuple:
        if isinstance(value, str):
            value = [part for part in value.strip(" []()").split(",") if part.strip()]
        parts = value if isinstance(value, (list, tuple)) else [value]
        return tuple(_number(get_args(hint)[0], part) for part in parts)
    if get_origin(hint) is dict:
        if not isinstance(value, Mapping):
            raise ValueError
        return dict(value)
    return _single(hint, value)


def _single(hint: Any, value: Any) -> Any:
    if hint is NoneType:
        if value is not None and str(value).lower() not in _NOTHING:
            raise ValueError
        return None
    if hint is bool:
        if isinstance(value, bool):
            return value
        if not isinstance(value, str) or value.strip().lower() not in _TRUTH:
            raise ValueError
        return _TRUTH[value.strip().lower()]
    if hint in (int, float, Ratio):
        return _number(hint, value)
    if hint is str:
        if isinstance(value, bool) or not isinstance(value, (str, os.PathLike, Real)):
            raise ValueError
        return os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    return value


def _any_of(members: tuple[Any, ...], value: Any) -> Any:
    """The first of ``members`` that takes ``value``; text is the last resort, since it takes everything."""
    for member in sorted(members, key=lambda member: member is str):
        try:
            return _converted(member, value)
        except (ValueError, TypeError):
            continue
    raise ValueError


def _literal(allowed: tuple[Any, ...], value: Any) -> Any:
    if value in allowed and not isinstance(value, bool):
        return value
    found = meant(str(value), [str(word) for word in allowed])
    if found is None:
        raise ValueError
    return next(word for word in allowed if str(word) == found)


def _number(hint: Any, value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError
    if hint is Ratio:
        return value if isinstance(value, Ratio) else Ratio(value)
    if isinstance(value, Integral if hint is int else Real):
        return hint(value)
    number = float(Ratio(value))
    if hint is int and not (math.isfinite(number) and number.is_integer()):
        raise ValueError
    return hint(number)


def _settings(name: str, kind: type[Settings], value: Any) -> Settings:
    if isinstance(value, kind):
        return value
    known = types_of(kind)
    if isinstance(value, str) and "name" in known:
        value = {"name": value}
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be settings by name ({', '.join(known)}), got {value!r}")
    for key in value:
        if key not in known:
            has = f"{', '.join(known)}{spelling_hint(str(key), known)}"
            raise ValueError(f"{name} has no setting {key!r}; it has {has}")
    return kind(**value)
