"""How a verb reads its words, and what is the user's error rather than ours."""

from __future__ import annotations

import argparse
from typing import NoReturn

BAD_INPUT = (ValueError, TypeError, OSError, argparse.ArgumentError)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM at a point from which one can go on; the message says how."""


class Parser(argparse.ArgumentParser):
    """Raises ValueError instead of printing the usage and leaving, and takes no abbreviations.

    Args:
        verb: of ``bat-fast``.
        description: shown by ``--help``.
    """

    def __init__(self, verb: str, description: str, **options: object) -> None:
        super().__init__(prog=f"bat-fast {verb}", description=description, allow_abbrev=False, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Raise ``message``."""
        raise ValueError(message)
