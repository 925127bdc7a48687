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

from bat_fast.cli.parser import Parser
from bat_fast.config import TrainConfig, recipes
from bat_fast.ratio import Ratio
from bat_fast.runs.folder import RunFolder, flat, plain

_ABOUT_THE_RUN: dict[str, dict[str, Any]] = {
    "--recipe": {"action": "append", "default": [], "help": f"shipped settings: {', '.join(recipes())}"},
    "--config": {"action": "append", "default": [], "help": "YAML file with settings"},
    "--out": {"type": Path, "help": "run folder (default: runs/NAME-DATE-TIME)"},
    "--fast": {"action": "store_true", "help": "the same as --speed fast"},
    "--resume": {"action": "store_true", "help": "continue the run in --out"},
    "--dry-run": {
        "action": "store_true",
        "help": "check the settings, build model and method, and stop: no data is read, no file written",
    },
}


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
    run, rest = _run_parser().parse_known_args(arguments)
    files = [str(_recipe(name)) for name in run.recipe] + run.config
    if run.resume and run.out is None:
        raise ValueError("--resume needs --out DIR, the folder of the run to continue")
    if run.resume and not files:
        stored = RunFolder(run.out).config
        if not stored.exists():
            raise FileNotFoundError(f"there is no run to resume in {run.out}: no config.yaml")
        files = [str(stored)]
    config = _parse(files, rest + (["--speed", "fast"] if run.fast else []))
    label = run.recipe[-1] if run.recipe else config.method.get("name", "run")
    return Command(config, run.out or RunFolder.default_path(label), run.resume, run.dry_run)


def read_run(path: Path, arguments: list[str]) -> TrainConfig:
    """The configuration of a run, with other settings where ``arguments`` have them.

    Raises:
        ValueError, argparse.ArgumentError: an argument is wrong, or would ask for other weights or images.
        FileNotFoundError: there is no run.
    """
    asked, rest = _run_parser().parse_known_args(arguments)
    arguments = [*rest, "--speed", "fast"] if asked.fast else arguments
    for name, value in vars(asked).items():
        if name == "fast":
            continue
        if value:
            flag = f"--{name.replace('_', '-')}"
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
    parser = _settings_parser()
    base = [argument for file in files for argument in ("--config", file)]
    method = Parser("train", "", add_help=False)
    method.add_argument("--method.name", dest="name")
    asked = method.parse_known_args(rest)[0].name
    # Options belong to one method: naming another on the command line drops those of the file.
    if asked is not None and asked != parser.parse_args(base).method.get("name"):
        base += ["--method", json.dumps({"name": asked})]
    parsed: dict[str, Any] = parser.parse_args(base + rest).as_dict()
    return _build(TrainConfig, parsed)


def _build(kind: Any, parsed: dict[str, Any]) -> Any:
    """The dataclass ``kind``, and the dataclasses inside it, from nested dictionaries."""
    values = {item.name: parsed[item.name] for item in fields(kind)}
    for item in fields(kind):
        if is_dataclass(item.default_factory):
            values[item.name] = _build(item.default_factory, values[item.name])
    return kind(**values)


def _run_parser() -> Parser:
    """Reads what is said about the run itself, and leaves the settings alone."""
    parser = Parser("train", "", add_help=False)
    for flag, how in _ABOUT_THE_RUN.items():
        parser.add_argument(flag, **how)
    return parser


def _settings_parser() -> ArgumentParser:
    """Reads the settings, and describes everything in ``--help``."""
    parser = ArgumentParser(
        prog="bat-fast train",
        description="Train a model. Settings come from a recipe or a YAML file; arguments override them.",
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with the settings below")
    for flag, how in _ABOUT_THE_RUN.items():
        if flag != "--config":  # never parsed here; SUPPRESS keeps them out of --print_config
            parser.add_argument(flag, **(how | {"default": argparse.SUPPRESS}))
    parser.add_class_arguments(TrainConfig)
    return parser


def _recipe(name: str) -> Path:
    known = recipes()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"no recipe {name!r}{hint} There are: {', '.join(known)}")
    return known[name]


def _serialise(ratio: Ratio) -> str | float:
    return ratio.text if "/" in ratio.text else float(ratio)


register_type(Ratio, serializer=_serialise, fail_already_registered=False)
