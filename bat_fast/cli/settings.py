"""A training configuration from recipes, YAML files and command-line arguments."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bat_fast._seal import check_text
from bat_fast.cli.catalogue import data_names, method_names, options_of, types
from bat_fast.cli.run_options import run_options, run_parser
from bat_fast.cli.sources import METHOD_NAME, Said, from_file, from_words, stored_file
from bat_fast.config import TrainConfig, recipes
from bat_fast.config.data import GIVEN
from bat_fast.config.idle import idle
from bat_fast.config.limits import problems
from bat_fast.runs.folder import RunFolder
from bat_fast.runs.plain import flat, plain
from bat_fast.spelling import hint, meant, nearest
from bat_fast.values import converted


class Command(NamedTuple):
    """What ``bat-fast train`` was asked to do."""

    config: TrainConfig
    out: Path
    resume: bool
    dry_run: bool
    named: bool
    """Whether the user has named the run folder; another one is numbered where it is taken."""
    seeds: tuple[int, ...] = ()
    """Train a run for each of them, into ``out/seed-N``; none trains one run, with the seed of ``config``."""
    record: bool = False
    """Whether to keep what each sample does in each epoch."""
    logs: tuple[str, ...] = ()
    """Where the metrics of each epoch go too, of `bat_fast.cli.run_options.LOGS`."""

    def refuse(self, *options: str) -> None:
        """Raise ValueError where one of these options is given: nobody would look at it."""
        given = {"--out": self.named, "--resume": self.resume, "--seeds": bool(self.seeds)}
        given |= {"--record_samples": self.record, "--log": bool(self.logs)}
        for option in options:
            if given[option]:
                raise ValueError(f"{option} means nothing here: leave it out")


def read_command(arguments: list[str], also: Iterable[str] = ()) -> Command:
    """Read the arguments of ``bat-fast train``.

    Files (``--recipe``, ``--config``) come first whatever their place, then the other arguments in order.
    ``--resume`` with no file takes the configuration from the run folder. ``--help`` and ``--print_config``
    print and raise SystemExit.

    Args:
        arguments: without the verb.
        also: options of the verb that are not for training, for the spelling.

    Raises:
        ValueError, argparse.ArgumentError: an argument is wrong; the message names it.
        FileNotFoundError: there is no run to resume.
    """
    run, rest = run_parser().parse_known_args(arguments)
    if run.help:
        from bat_fast.cli.manual import train_help

        print(train_help(run_parser()))
        sys.exit(0)
    said = [_recipe(name) for name in run.recipe] + [from_file(path) for path in run.config]
    if run.resume and run.out is None:
        raise ValueError("--resume needs --out DIR, the folder of the run to continue")
    if len(set(run.seeds)) < len(run.seeds):
        raise ValueError(f"--seeds names a seed twice: {' '.join(map(str, run.seeds))}")
    given = {one.setting: one.value for one in from_words(rest, [*run_options(), *also])}
    if run.seeds and "seed" in given:
        raise ValueError(
            f"--seed {given['seed']} means nothing beside --seeds, which names all: leave it out"
        )
    if run.fast and given.get("speed", "fast") != "fast":
        raise ValueError(f"--fast is --speed fast, and --speed {given['speed']} was said too: leave one out")
    if run.resume and not said:
        said = [from_file(stored_file(run.out, run.seeds))]
    config = _build(said, rest + (["--speed", "fast"] if run.fast else []), [*run_options(), *also])
    if run.print_config is not None:
        print(_printed(config, run.print_config), end="")
        sys.exit(0)
    label = Path(run.recipe[-1]).name if run.recipe else config.method["name"]
    out = run.out or RunFolder.default_path(label, None if run.seeds else config.seed)
    named, seeds, logs = run.out is not None, tuple(run.seeds), tuple(dict.fromkeys(run.log))
    return Command(config, out, run.resume, run.dry_run, named, seeds, run.record, logs)


def read_run(path: Path, arguments: list[str], also: Iterable[str] = ()) -> TrainConfig:
    """The configuration of a run, with other settings where ``arguments`` have them.

    Raises:
        ValueError, argparse.ArgumentError: an argument is wrong, or would ask for other weights or images.
        FileNotFoundError: there is no run.
    """
    asked, rest = run_parser().parse_known_args(arguments)
    words = [*rest, "--speed", "fast"] if asked.fast else rest
    for name, value in vars(asked).items():
        if name != "fast" and value:
            flag = f"--{name.replace('dry_run', 'dry-run')}"
            raise ValueError(f"{flag} does not go with --run, which has its settings from the run folder")
    stored = RunFolder(path).config
    if not stored.exists():
        raise FileNotFoundError(f"{path} is no run folder: there is no config.yaml in it")
    check_text(stored)
    said = [from_file(stored)]
    wanted, trained = _build(said, words, [*run_options(), *also]), _build(said, [], [])
    asked_for, there = flat(plain(wanted)), flat(plain(trained))
    for key in asked_for.keys() | there.keys():
        fixed = key == "seed" or key.startswith(("model.", "data."))
        if fixed and key != "data.root" and asked_for.get(key) != there.get(key):
            raise ValueError(f"--{key} does not go with --run: model and images are those of the run")
    return wanted


def _recipe(name: str) -> list[Said]:
    known = recipes()
    found = meant(name, known)
    if found is None:
        near = hint(name, known) or ";"
        raise ValueError(f"there is no recipe {name!r}{near} `bat-fast recipes` lists them all")
    return from_file(known[found])


def _build(files: Sequence[Sequence[Said]], words: list[str], also: Iterable[str]) -> TrainConfig:
    """The configuration that files and words say, the later ones winning, in its types and ranges."""
    values: dict[str, Any] = {"method": TrainConfig().method}
    origins: dict[str, str] = {}
    said = from_words(words, also)
    # Options belong to one method: naming another on the command line drops those of the file alone.
    said.sort(key=lambda one: not _names_method(one))
    for one in [*(one for file in files for one in file), *said]:
        value = _known(one)
        if not one.below and not (one.setting == "method" and "name" not in value):
            values[one.setting] = value
        elif (one.setting, one.below) == METHOD_NAME:
            if value != values["method"].get("name"):
                values["method"] = {"name": value}
        elif not one.below:
            values["method"] = values["method"] | value
        else:
            values[one.setting] = _put(values.get(one.setting, {}), one.below, value)
        origins[".".join([one.setting, *one.below])] = origins[one.setting] = one.origin
    _check_method(values["method"], origins)
    config = TrainConfig(**_nested(values))
    for name, message in (*problems(config), *idle(config, origins)):
        raise ValueError(f"{origins.get(name, '')}{message}")
    return config


def _names_method(one: Said) -> bool:
    whole = one.setting == "method" and not one.below and isinstance(one.value, Mapping)
    return (whole and "name" in one.value) or (one.setting, one.below) == METHOD_NAME


def _known(one: Said) -> Any:
    """The value in its type, with names of methods and data sets as the package spells them."""
    if one.setting == "data.name":
        return _name("data set", str(one.value), one.origin)
    if one.below:
        return _name("method", str(one.value), one.origin) if _names_method(one) else one.value
    try:
        value = converted(one.setting, types()[one.setting], one.value)
    except ValueError as error:
        raise ValueError(f"{one.origin}{error}") from None
    if one.setting == "method" and "name" in value:
        value["name"] = _name("method", str(value["name"]), one.origin)
    return value


_REGISTRIES = {"data set": ("data", data_names), "method": ("methods", method_names)}


def _name(kind: str, word: str, origin: str) -> str:
    """``word`` as the package spells it, which is asked itself where no file has a name like that."""
    if word == GIVEN:  # by `Trainer(splits=)`: whoever asks for the data says so
        return word
    package, listed = _REGISTRIES[kind]
    known = listed()
    if meant(word, known) is None and nearest(word, known) is None:
        known = import_module(f"bat_fast.{package}").names()  # loads torch
    found = meant(word, known)
    if found is None:
        there = ", ".join(known)
        raise ValueError(f"{origin}there is no {kind} {word!r}; there are {there}{hint(word, known)}")
    return found


def _check_method(method: dict[str, Any], origins: dict[str, str]) -> None:
    known = options_of(method["name"])
    for option in method:
        if known is not None and option not in ("name", *known):
            origin = origins.get(f"method.{option}", origins.get("method", ""))
            has = f"it has {', '.join(known) or 'none'}{hint(option, known)}"
            raise ValueError(f"{origin}method {method['name']} has no option {option!r}; {has}")


def _put(tree: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    inner = value if len(path) == 1 else _put(dict(tree.get(path[0]) or {}), path[1:], value)
    return tree | {path[0]: inner}


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in values.items():
        tree = _put(tree, name.split("."), value)
    return tree


def _printed(config: TrainConfig, what: str) -> str:
    skip = {"": (), "skip_default": ("skip_default",), "skip_null": ("skip_null",)}.get(what)
    if skip is None:
        raise ValueError(f"--print_config takes skip_default, skip_null or nothing, got {what!r}")
    default, tree = flat(plain(TrainConfig())), plain(config)
    if skip:
        kept = {
            name: value
            for name, value in flat(tree).items()
            if (value is not None if "skip_null" in skip else name not in default or value != default[name])
        }
        tree = _nested(kept)
    return yaml.safe_dump(tree, sort_keys=False)
