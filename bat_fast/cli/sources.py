"""What recipes, YAML files and command-line arguments say, as a list of settings in order."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_origin

import yaml

from bat_fast._seal import check_text
from bat_fast.cli.catalogue import ALIASES, NAMED, OPEN, group_names, types
from bat_fast.runs.folder import RunFolder
from bat_fast.spelling import nearest
from bat_fast.values import describe

_ABOUT_THE_RUN = ("recipe", "out", "seeds", "fast", "resume", "dry_run", "dry-run", "log", "record_samples")
METHOD_NAME = ("method", ("name",))


class Said(NamedTuple):
    """One setting as somewhere written."""

    setting: str
    """Its whole name."""
    below: tuple[str, ...]
    """Names below it, where it is one of `OPEN`: ``data.options.val`` is ``data.options`` and ``val``."""
    value: Any
    origin: str
    """The file with a colon, for messages; empty for the command line."""


class _Loader(yaml.SafeLoader):
    """YAML in which ``1e-3`` is a number, as it is everywhere else."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def from_file(path: str | Path, named_by: tuple[Path, ...] = ()) -> list[Said]:
    """The settings of a YAML file, or of YAML itself (``{epochs: 5}``).

    Args:
        path: of the file.
        named_by: the files whose ``config:`` led here, the first one first.

    Raises:
        OSError: no such file. ValueError: it is no YAML, or has something that is no setting; the message
            names the file.
    """
    file = Path(path)
    if ":" in str(path) and not file.exists():
        tree = _parsed(str(path), "--config: ")
        if isinstance(tree, Mapping):
            return list(_flat(tree, "", "--config: ", named_by))
    where = f"{named_by[-1]}: config" if named_by else "--config"
    if not file.is_file():
        raise FileNotFoundError(f"{where}: there is no file {path}")
    if file.resolve() in [above.resolve() for above in named_by]:
        raise ValueError(f"{where}: {path} would be read within itself; leave it out")
    origin = f"{path}: "
    tree = _parsed(_text(file), origin)
    if not isinstance(tree, Mapping) and tree is not None:
        raise ValueError(f"{origin}this is no list of settings; write NAME: VALUE")
    return list(_flat(tree or {}, "", origin, (*named_by, file)))


def stored_file(out: Path, seeds: Sequence[int]) -> Path:
    """The settings of the run to resume; those of several seeds differ in the seed alone."""
    folders = [out / f"seed-{seed}" for seed in seeds] or [out]
    stored = [file for folder in folders if (file := RunFolder(folder).config).exists()]
    if stored:
        check_text(stored[0])
        return stored[0]
    names = (path.parent.name for path in out.glob("seed-*/config.yaml"))
    begun = sorted((name.removeprefix("seed-") for name in names), key=lambda seed: (len(seed), seed))
    more = f"; there are seeds: --seeds {' '.join(begun)}" if begun else ""
    raise FileNotFoundError(f"there is no run to resume in {out}: no config.yaml{more}")


def from_words(words: Iterable[str], also: Iterable[str] = ()) -> list[Said]:
    """The settings of command-line arguments, ``--optim.lr 0.1`` or ``--optim.lr=0.1``.

    Args:
        words: the arguments.
        also: other options that the command knows, with their dashes, for the spelling.

    Raises:
        ValueError: an argument is no setting, or has no value.
    """
    found: list[Said] = []
    rest = deque(words)
    while rest:
        word = rest.popleft()
        if not word.startswith("--"):
            raise ValueError(f"unrecognized argument {word!r}: settings are written --NAME VALUE")
        name, equals, text = word[2:].partition("=")
        kind = types().get(_resolve(name, "", "--", also)[0])
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ValueError(f"argument --{name}: expected one argument{_wanted(kind)}")
            text = rest.popleft()
            if get_origin(kind) is tuple:  # as eval --eps and train --seeds take them
                while rest and not rest[0].startswith("--"):
                    text += f",{rest.popleft().strip('[],')}"
        found += _said(name, text, "", (), dashes="--")
    return found


def _wanted(kind: Any) -> str:
    """What a setting takes, where that is few words or a list."""
    listed = kind is bool or get_origin(kind) in (Literal, tuple)
    return f": {describe(kind)}" if listed else ""


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{file}: this is no text in UTF-8") from None


def _parsed(text: str, origin: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{origin}this is no YAML: {' '.join(str(error).split())}") from None


def _flat(tree: Mapping[Any, Any], prefix: str, origin: str, files: tuple[Path, ...]) -> Iterator[Said]:
    """What a mapping says, which stands in the last of ``files``."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if name == "config":  # a file may begin with others
            for file in value if isinstance(value, list) else [value]:
                yield from from_file(_near(files, str(file)), files)
        else:
            yield from _said(name, value, origin, files)


def _said(name: str, value: Any, origin: str, files: tuple[Path, ...], dashes: str = "") -> Iterator[Said]:
    """What ``name: value`` says; ``value`` is text on the command line, where it comes with ``dashes``."""
    setting, below = _resolve(name, origin, dashes)
    is_group, words = setting in group_names(), bool(dashes)
    if words and (setting in OPEN or (is_group and value.lstrip().startswith("{"))):
        value = _parsed(value, f"{dashes}{name}: ")
    if setting in NAMED and not below and isinstance(value, str) and not value.endswith((".yaml", ".yml")):
        if setting != "method":
            yield from _said(f"{setting}.name", value, origin, files)
        elif words:
            yield Said(*METHOD_NAME, value, origin)
        else:
            yield Said("method", (), {"name": value}, origin)
    elif is_group:
        if isinstance(value, str):
            yield from _group_file(setting, _near(files, value), origin, files)
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{setting}.", origin, files)
        else:
            raise ValueError(
                f"{origin}{dashes}{setting} must be settings, such as {{name: value}}, got {value!r}"
            )
    else:
        yield Said(setting, below, value, origin)


def _group_file(group: str, file: Path, origin: str, files: tuple[Path, ...]) -> Iterator[Said]:
    if not file.is_file():
        raise ValueError(
            f"{origin}{group} must be settings, such as {{name: value}}, or their file, got {str(file)!r}"
        )
    tree = _parsed(_text(file), f"{file}: ")
    if not isinstance(tree, Mapping):
        raise ValueError(f"{file}: this is no list of settings; write NAME: VALUE")
    yield from _flat(tree, f"{group}.", f"{file}: ", (*files, file))


def _near(files: tuple[Path, ...], file: str) -> Path:
    """``file`` beside the one that names it, which is the last of ``files``, or from here."""
    beside = (files[-1].parent if files else Path()) / file
    return beside if beside.exists() else Path(file)


def _resolve(name: str, origin: str, dashes: str, also: Iterable[str] = ()) -> tuple[str, tuple[str, ...]]:
    """The setting or group of that name, and the names below it."""
    name = name if name in types() else name.replace("-", "_") if _is_known(name.replace("-", "_")) else name
    name = ALIASES.get(name, name)
    if name in types() or name in group_names():
        return name, ()
    for setting in OPEN:
        if name.startswith(f"{setting}.") and name[len(setting) + 1 :]:
            return setting, tuple(name[len(setting) + 1 :].split("."))
    if not dashes and name in _ABOUT_THE_RUN:
        raise ValueError(f"{origin}{name} is no setting of a file; say --{name} on the command line")
    kind = "unrecognized argument --" if dashes else "there is no setting "
    raise ValueError(f"{origin}{kind}{name}{_hint(name, dashes, also)}")


def _is_known(name: str) -> bool:
    return name in types() or name in ALIASES or name in group_names()


def _hint(name: str, dashes: str, also: Iterable[str]) -> str:
    """``; did you mean --optim.momentum?``, also for the last part of its name alone (``--momentum``)."""
    shown = {setting.rpartition(".")[2]: setting for setting in reversed(types())}
    shown |= {word: word for word in (*types(), *ALIASES, *(option.lstrip("-") for option in also))}
    near = nearest(name, shown) or nearest(name.rpartition(".")[2], shown)
    return f"; did you mean {dashes}{shown[near]}?" if near else ""
