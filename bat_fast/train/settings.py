"""A training configuration from YAML files and command-line arguments."""

from __future__ import annotations

import argparse
import difflib
import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import ArgumentParser
from jsonargparse.typing import register_type

from bat_fast.config import Ratio, TrainConfig, recipes
from bat_fast.train.run_folder import RunFolder, flat, plain


class Command(NamedTuple):
    """What ``bat-fast train`` was asked to do."""

    config: TrainConfig
    out: Path
    resume: bool
    dry_run: bool


def read_command(arguments: list[str]) -> Command:
    """Read the arguments of ``bat-fast train``.

    Files (``--recipe``, ``--config``) come first whatever their place, then the other arguments in order.
    ``--resume`` with no file takes the configuration from the run folder.

    Raises:
        ValueError, argparse.ArgumentError: an argument is wrong; the message names it.
        FileNotFoundError: there is no run to resume.
    """
    rest = list(arguments)
    names = _take(rest, "--recipe")
    files = [str(_recipe(name)) for name in names] + _take(rest, "--config")
    out = _take(rest, "--out")
    resume = "--resume" in rest
    dry_run = "--dry-run" in rest
    rest = [argument for argument in rest if argument != "--dry-run"]
    if resume and not out:
        raise ValueError("--resume needs --out DIR, the folder of the run to continue")
    if resume and not files:
        stored = RunFolder(Path(out[-1])).config
        if not stored.exists():
            raise FileNotFoundError(f"there is no run to resume in {out[-1]}: no config.yaml")
        files = [str(stored)]
    config = _parse(files, rest)
    label = names[-1] if names else config.method.get("name", "run")
    return Command(config, Path(out[-1]) if out else RunFolder.default_path(label), resume, dry_run)


def read_run(path: Path, arguments: list[str]) -> TrainConfig:
    """The configuration of a run, with other settings where ``arguments`` have them.

    Raises:
        ValueError, argparse.ArgumentError: an argument is wrong, or would ask for other weights or images.
        FileNotFoundError: there is no run.
    """
    for flag in ("--recipe", "--config", "--out", "--resume", "--dry-run"):
        if any(argument.partition("=")[0] == flag for argument in arguments):
            raise ValueError(f"{flag} does not go with --run, which has its settings from the run folder")
    stored = RunFolder(path).config
    if not stored.exists():
        raise FileNotFoundError(f"{path} is no run folder: there is no config.yaml in it")
    config, trained = (flat(plain(_parse([str(stored)], words))) for words in (arguments, []))
    for key in config.keys() | trained.keys():
        fixed = key == "seed" or key.startswith(("model.", "data."))
        if fixed and key != "data.root" and config.get(key) != trained.get(key):
            raise ValueError(f"--{key} does not go with --run: model and images are those of the run")
    return _parse([str(stored)], arguments)


def _parse(files: list[str], rest: list[str]) -> TrainConfig:
    parser = _parser()
    base = [argument for file in files for argument in ("--config", file)]
    asked = _take(list(rest), "--method.name")
    # Options belong to one method: naming another on the command line drops those of the file.
    if asked and asked[-1] != parser.parse_args(base).method.get("name"):
        base += ["--method", json.dumps({"name": asked[-1]})]
    parsed: dict[str, Any] = parser.parse_args(base + rest).as_dict()
    return _build(TrainConfig, parsed)


def _build(kind: Any, parsed: dict[str, Any]) -> Any:
    """The dataclass ``kind``, and the dataclasses inside it, from nested dictionaries."""
    values = {item.name: parsed[item.name] for item in fields(kind)}
    for item in fields(kind):
        if is_dataclass(item.default_factory):
            values[item.name] = _build(item.default_factory, values[item.name])
    return kind(**values)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="bat-fast train",
        description="Train a model. Settings come from a recipe or a YAML file; arguments override them.",
        exit_on_error=False,
    )
    absent = argparse.SUPPRESS  # keeps these out of --print_config
    parser.add_argument("--config", action="config", help="YAML file with the settings below")
    parser.add_argument("--recipe", default=absent, help=f"shipped settings: {', '.join(recipes())}")
    parser.add_argument("--out", default=absent, help="run folder (default: runs/NAME-DATE-TIME)")
    parser.add_argument("--resume", action="store_true", default=absent, help="continue the run in --out")
    dry_run = "check the settings, build model and method, and stop: no data is read, no file written"
    parser.add_argument("--dry-run", action="store_true", default=absent, help=dry_run)
    parser.add_class_arguments(TrainConfig)
    return parser


def _recipe(name: str) -> Path:
    known = recipes()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"no recipe {name!r}{hint} There are: {', '.join(known)}")
    return known[name]


def _take(arguments: list[str], flag: str) -> list[str]:
    """Remove ``flag VALUE`` and ``flag=VALUE`` from ``arguments`` and return the values."""
    values = []
    position = 0
    while position < len(arguments):
        name, equals, value = arguments[position].partition("=")
        if name != flag:
            position += 1
            continue
        del arguments[position]
        if not equals:
            if position == len(arguments):
                raise ValueError(f"{flag} needs a value")
            value = arguments.pop(position)
        values.append(value)
    return values


def _serialise(ratio: Ratio) -> str | float:
    return ratio.text if "/" in ratio.text else float(ratio)


register_type(Ratio, serializer=_serialise, fail_already_registered=False)
