"""What there is to set, read from the sources: it needs no torch, so help and typos are answered at once."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

import bat_fast
from bat_fast.config import TrainConfig
from bat_fast.config.limits import allowed
from bat_fast.values import Settings, describe, types_of

PACKAGE = Path(str(bat_fast.__file__)).parent
ALIASES = {"lr": "optim.lr", "eps": "attack.eps", "steps": "attack.steps", "root": "data.root"}
"""Short names of settings."""
OPEN = ("data.options", "model.options", "method")
"""Settings whose names below are not known here: they belong to a data set, a class, a method."""
NAMED = ("data", "model", "method")
"""Groups that a name alone says: ``--model small_cnn`` is ``--model.name small_cnn``."""


class Setting(NamedTuple):
    """One setting, described for people."""

    name: str
    """With its groups: ``optim.lr``."""
    text: str
    """What it is."""
    takes: str
    """Its type, in words."""
    default: str
    """As one would write it."""
    range: str
    """Its range in words, or nothing."""


class Group(NamedTuple):
    """Settings that belong together."""

    name: str
    """``optim``; empty for those of the whole run; ``method bat`` for the options of a method."""
    text: str
    """What they are about."""
    settings: list[Setting]


@cache
def types() -> dict[str, Any]:
    """Every setting by its whole name, and what it is annotated with; the groups are not among them."""
    return {name: hint for name, hint in _walk(TrainConfig, "") if not _is_group(hint)}


@cache
def group_names() -> list[str]:
    """``data``, ``data.augment``, ``attack``, ..."""
    return [name for name, hint in _walk(TrainConfig, "") if _is_group(hint)]


@cache
def groups() -> list[Group]:
    """All settings as people read them, and the options of the methods."""
    kinds = [("", TrainConfig), *((name, hint) for name, hint in _walk(TrainConfig, "") if _is_group(hint))]
    found = [Group(name, _first(kind.__doc__ or ""), _settings(name, kind)) for name, kind in kinds]
    return [*found, *(_method(name) for name in own_methods())]


def find(word: str) -> list[Group]:
    """What ``word`` names, in full, by an alias or, for a method, by its name: whole groups, or the groups of
    a setting with that setting alone (several methods may have an option of one name)."""
    word = ALIASES.get(word, word)
    whole = [group for group in groups() if word and word in (group.name, group.name.removeprefix("method "))]
    if whole:
        return whole
    parts = [(group, [one for one in group.settings if one.name == word]) for group in groups()]
    return [group._replace(settings=settings) for group, settings in parts if settings]


def method_names() -> list[str]:
    """The training methods, those of other packages last."""
    return [*own_methods(), *(point.name for point in entry_points(group="bat_fast.methods"))]


def data_names() -> list[str]:
    """The data sets, those of other packages last."""
    return [*_own_data(), *(point.name for point in entry_points(group="bat_fast.data"))]


def _own_data() -> list[str]:
    return [path.stem for path in sorted((PACKAGE / "data" / "sets").glob("[!_]*.py"))]


@cache
def own_methods() -> dict[str, ast.ClassDef]:
    """The methods of this package: the dataclass of each module of ``methods``."""
    return {
        path.stem: node
        for path in sorted((PACKAGE / "methods").glob("[!_]*.py"))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
        and any("dataclass" in ast.unparse(how) for how in node.decorator_list)
    }


def options_of(method: str) -> list[str] | None:
    """The options of a method of this package; None for one of another."""
    node = own_methods().get(method)
    return None if node is None else [name for name, *_ in _fields(node)]


def _walk(kind: type, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, hint in types_of(kind).items():
        yield prefix + name, hint
        if _is_group(hint):
            yield from _walk(hint, f"{prefix}{name}.")


def _is_group(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Settings)


def _settings(group: str, kind: type[Settings]) -> list[Setting]:
    prefix, values = f"{group}." if group else "", kind()
    node = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(node, ast.ClassDef)
    texts = {name: text for name, _, _, text in _fields(node)}
    names = {"data.name": _own_data(), "method": own_methods()}
    return [
        Setting(
            prefix + name,
            texts[name],
            describe(hint),
            _written(getattr(values, name)),
            ", ".join(names.get(prefix + name, ())) or allowed(prefix + name),
        )
        for name, hint in types_of(kind).items()
        if not _is_group(hint)
    ]


def _method(name: str) -> Group:
    node = own_methods()[name]
    settings = [
        Setting(f"method.{option}", text, takes, default, "")
        for option, takes, default, text in _fields(node)
    ]
    return Group(f"method {name}", _first(ast.get_docstring(node) or ""), settings)


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, default and docstring of each field of a dataclass."""
    for item, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(item, ast.AnnAssign) and item.value is not None:
            text = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                text = inspect.cleandoc(str(after.value.value))
            yield (
                ast.unparse(item.target),
                _takes(item.annotation),
                _default(item.value),
                " ".join(text.split()),
            )


_WORDS = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "text"}


def _takes(annotation: ast.expr) -> str:
    text = ast.unparse(annotation)
    if text.startswith("Literal["):
        words = re.findall("'(.+?)'", text)
        return f"one of {', '.join(words)}"
    return _WORDS.get(text, "names with values, such as {name: value}" if "Mapping" in text else text)


def _default(value: ast.expr) -> str:
    return _written(ast.literal_eval(value)) if isinstance(value, (ast.Constant, ast.UnaryOp)) else "{}"


def _written(value: Any) -> str:
    """A value as YAML and the command line have it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_written(item)}' for key, item in value.items())}}}"
    return f"{value:g}" if type(value) is float else str(value)


def _first(docstring: str) -> str:
    """The first paragraph of a docstring, as one line."""
    text = " ".join(inspect.cleandoc(docstring).partition("\n\n")[0].split())
    return f"{text[:-2]}." if text.endswith("::") else text
