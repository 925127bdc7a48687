"""The command line: ``bat-fast VERB ...``, the same as ``python -m bat_fast VERB ...``."""

from __future__ import annotations

import os
import pkgutil
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from types import FrameType
from typing import Any

from bat_fast._install import install
from bat_fast.cli import verbs
from bat_fast.cli.parser import BAD_INPUT, Interrupted
from bat_fast.spelling import hint
from bat_fast.world.launch import said_by

_OPTIONAL = {"yaml", "rich", "matplotlib", "safetensors", "sklearn", "timm", "torchvision"}
_STDOUT = 1
_SCHEDULERS = (signal.SIGTERM, signal.SIGUSR1)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0, 1 (failure), 2 (bad input), 75 (a training was told to end by SIGTERM or SIGUSR1 and can go on), 130
    (interrupted otherwise), 141 (nobody reads what is printed any more, as with ``| head``). SIGTERM and
    SIGUSR1 interrupt as Ctrl-C does, wherever they arrive.
    """
    try:
        try:
            return _main(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if _is_read():
            raise
        # What is still to be written would be an error again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
        return 141


def _main(arguments: list[str] | None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        with _terminable():
            return _run(words)
    except KeyboardInterrupt as error:
        if isinstance(error, Interrupted):
            return _say(str(error), error.status)
        return _say("interrupted", 130)
    except Exception as error:
        if debug or (isinstance(error, BrokenPipeError) and not _is_read()):
            raise
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in _OPTIONAL:
            return _say(f"{said_by()}error: {error.name} is not installed: {install(str(error.name))}", 1)
        return _say(f"{said_by()}error: {_one_line(error)}", 2 if isinstance(error, BAD_INPUT) else 1)


@contextmanager
def _terminable() -> Iterator[None]:
    """Inside ``with``, the signals of a scheduler raise KeyboardInterrupt with their number, where nobody has
    asked for something else."""
    ours = []
    if threading.current_thread() is threading.main_thread():
        ours = [number for number in _SCHEDULERS if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt(number)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"bat-fast {version('bat_fast')}")
        return 0
    if words[0] not in _names():
        there = ", ".join(_names())
        raise ValueError(f"no verb {words[0]!r}; there are {there}{hint(words[0], _names())}")
    _verb(words[0]).run(words[1:])
    return 0


def _names() -> list[str]:
    """The verbs: the modules of ``cli/verbs``."""
    return [found.name for found in pkgutil.iter_modules(verbs.__path__)]


def _verb(name: str) -> Any:
    """A verb: a module with ``SUMMARY``, its line of the usage, and ``run(words)``."""
    return import_module(f"{verbs.__name__}.{name}")


def _usage() -> str:
    names = _names()
    width = max(map(len, names)) + 1
    lines = "\n".join(f"  {name:<{width}}{_verb(name).SUMMARY}" for name in names)
    return (
        f"usage: bat-fast VERB ... [--debug]\n\n{lines}\n\n"
        "`bat-fast VERB --help` lists the options of a verb. --debug shows the traceback of an error, "
        "--version the version.\n\n"
        "Exit status: 0 all is well; 1 a failure; 2 bad input; 75 a training was ended by SIGTERM or "
        "SIGUSR1 and 130 anything by Ctrl-C, to go on with `bat-fast train --resume --out DIR`."
    )


def _is_read() -> bool:
    """Whether what is printed still has a reader: a pipe without one is in the state of an error."""
    poll = select.poll()
    poll.register(_STDOUT, 0)
    return not poll.poll(0)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, BAD_INPUT) else f"{type(error).__name__}: {text}"


def _say(message: str, status: int) -> int:
    print(f"bat-fast: {message}", file=sys.stderr)
    return status
