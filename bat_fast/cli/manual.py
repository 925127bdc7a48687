"""The settings as text: ``bat-fast train --help``, ``bat-fast help SETTING`` and docs/settings.md."""

from __future__ import annotations

import argparse
import textwrap

from bat_fast.cli.catalogue import ALIASES, Group, Setting, find, groups
from bat_fast.spelling import hint

_WIDTH = 100
_UNITS = (
    "Lengths in pixels are in [0, 1] and may be fractions (8/255). A part of the run is a fraction of it in "
    "[0, 1], or a number of epochs above 1. Words may be written in any case. "
    "--model NAME, --data NAME and --method NAME are short for --model.name NAME and so on, also in YAML; "
    f"{', '.join(f'--{short} for --{name}' for short, name in ALIASES.items())}."
)


def train_help(parser: argparse.ArgumentParser) -> str:
    """What ``bat-fast train --help`` prints.

    Args:
        parser: of the options that are no settings.
    """
    lines = [
        "usage: bat-fast train [--recipe NAME] [--config FILE] [--out DIR] [--SETTING VALUE ...]",
        "",
        *_wrapped("Train a model. Settings come from a recipe or a YAML file; arguments override them.", ""),
        "",
        *_wrapped(_UNITS, ""),
        "",
        "About the run",
    ]
    for action in parser._actions:
        names = ", ".join(action.option_strings[:1])
        lines += _entry(f"{names} {_value(action)}".rstrip(), str(action.help))
    for group in groups():
        lines += ["", *_wrapped(f"{_heading(group)}: {_plain(group.text)}", "")]
        for setting in group.settings:
            lines += _entry(f"--{setting.name}", f"{_plain(setting.text)} {_facts(setting)}".strip())
    return "\n".join([*lines, "", "`bat-fast help SETTING` says all about one of them."])


def describe_setting(word: str) -> str:
    """What ``bat-fast help WORD`` prints about a setting, a group of them or a method.

    Raises:
        ValueError: there is no such setting.
    """
    word = word.lstrip("-")
    found = find(word)
    if not found:
        known = [name for group in groups() for name in (group.name, *(one.name for one in group.settings))]
        raise ValueError(f"there is no setting {word!r}{hint(word, filter(None, known))}")
    parts: list[str] = []
    for group in found:
        if len(group.settings) != 1 or group.name.startswith("method "):
            parts.append("\n".join(_wrapped(f"{_heading(group)}: {_plain(group.text)}", "")))
        parts += map(_page, group.settings)
    return "\n\n".join(parts)


def markdown() -> str:
    """docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Every setting, by its name on the command line (`--optim.lr 0.1`), in YAML and in Python.",
        "This page is made from the code: `bat-fast help --markdown > docs/settings.md`.",
        "",
        *textwrap.wrap(_UNITS, 120),
    ]
    for group in groups():
        lines += ["", f"## {_heading(group)}", "", _ticks(group.text)]
        if group.settings:
            lines += ["", "| setting | default | takes | what it is |", "|---|---|---|---|"]
        for one in group.settings:
            takes = f"{one.takes}; {one.range}" if one.range else one.takes
            lines.append(
                f"| `{one.name}` | `{one.default}` | {takes} | {_ticks(one.text)} |".replace("| |", "|")
            )
    return "\n".join(lines) + "\n"


def _heading(group: Group) -> str:
    return group.name.replace("method ", "Method ") if group.name else "The run"


def _page(setting: Setting) -> str:
    rows = [("takes", setting.takes), ("range", setting.range), ("default", setting.default)]
    short = [f"--{name}" for name, whole in ALIASES.items() if whole == setting.name]
    rows.append(("short", ", ".join(short)))
    lines = [setting.name, *_wrapped(_plain(setting.text), "  ")]
    return "\n".join([*lines, *(f"  {name:<9}{text}" for name, text in rows if text)])


def _facts(setting: Setting) -> str:
    facts = [f"default {setting.default}", setting.takes, setting.range]
    return f"({'; '.join(filter(None, facts))})"


def _entry(name: str, text: str) -> list[str]:
    return [f"  {name}", *_wrapped(text.replace("%%", "%"), "      ")]


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    return f"[{action.metavar}]" if action.nargs == "?" else action.dest.upper()


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def _plain(text: str) -> str:
    return text.replace("``", "")


def _ticks(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")
