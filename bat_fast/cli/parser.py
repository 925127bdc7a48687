"""How a verb reads its words, and what is the user's error rather than ours."""

from __future__ import annotations

import argparse
import ast
import re
import signal
from collections.abc import Sequence
from typing import Any, NoReturn

from bat_fast.spelling import hint, meant

BAD_INPUT = (ValueError, TypeError, OSError, argparse.ArgumentError)


class Interrupted(KeyboardInterrupt):
    """A signal at a point from which one can go on; the message says how.

    Args:
        message: for people.
        number: of the signal. A scheduler sends SIGTERM or SIGUSR1 and reads the exit status: 75, which is
            EX_TEMPFAIL of sysexits.h, asks it to queue the job again.
    """

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.status = 75 if number in (signal.SIGTERM, signal.SIGUSR1) else 130


class Parser(argparse.ArgumentParser):
    """Raises ValueError instead of printing the usage and leaving, and takes no abbreviations.

    What is misspelt gets a suggestion; choices may be written in any case, with dashes or underscores; a
    negative fraction (``--eps -1/255``) is a value and no option.

    Args:
        verb: of ``bat-fast``.
        description: shown by ``--help``.
    """

    def __init__(self, verb: str, description: str, **options: object) -> None:
        super().__init__(prog=f"bat-fast {verb}", description=description, allow_abbrev=False, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Raise ``message``."""
        raise ValueError(message)

    def options(self) -> list[str]:
        """The long options, with their dashes."""
        return [text for action in self._actions for text in action.option_strings if text.startswith("--")]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; the words that are no argument of this parser come back beside the result."""
        return super().parse_known_args(args if args is None else _joined(args), namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does.

        Raises:
            ValueError: an argument is wrong or unknown.
        """
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            first = unknown[0].partition("=")[0]
            near = hint(first.lstrip("-"), [option.lstrip("-") for option in self.options()])
            self.error(f"unrecognized argument {' '.join(unknown)}{near.replace('mean ', 'mean --')}")
        return found

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        value = super()._get_value(action, arg_string)
        if action.choices is None or value in action.choices or not isinstance(value, str):
            return value
        return meant(value, map(str, action.choices)) or value

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(
                action, f"{value!r} is none of {', '.join(known)}{hint(str(value), known)}"
            )


def _joined(words: Sequence[str]) -> list[str]:
    """``--eps -1/255`` as ``--eps=-1/255``: argparse would take the number for an option."""
    joined: list[str] = []
    for word in words:
        is_value = joined and re.match(r"-\.?\d", word) and re.fullmatch(r"--[^=]+", joined[-1])
        if is_value:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def dotted(words: Sequence[str], groups: Sequence[str]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """``--GROUP.NAME VALUE`` and ``--GROUP.NAME=VALUE`` taken out of ``words``: the rest, and them by group.

    Args:
        words: of a command.
        groups: such as ``model.options``.

    Raises:
        ValueError: there is no value behind a name.
    """
    rest: list[str] = []
    found: dict[str, dict[str, Any]] = {group: {} for group in groups}
    left = iter(words)
    for word in left:
        match = re.fullmatch(rf"--({'|'.join(map(re.escape, groups))})\.(\w+)(?:=(.*))?", word)
        if match is None:
            rest.append(word)
            continue
        text = next(left, None) if match[3] is None else match[3]
        if text is None:
            raise ValueError(f"--{match[1]}.{match[2]}: expected one argument")
        found[match[1]][match[2]] = _literal(text)
    return rest, found


def _literal(text: str) -> Any:
    """A number, a truth or a list where ``text`` is one, else itself."""
    words = {"true": True, "false": False, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
