"""Environment variables: what they say, or one line which names them. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping


def whole(environ: Mapping[str, str], name: str, usual: int | None = None, least: int = 0) -> int:
    """The whole number of variable ``name``; ``usual`` where it is not set.

    Raises:
        KeyError: it is not set, and there is no usual. ValueError: it is no whole number >= ``least``.
    """
    text = environ[name] if usual is None else environ.get(name, str(usual))
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit()) or int(digits) < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {text!r}: unset it, or correct it")
    return int(digits)


def switched_off(environ: Mapping[str, str], name: str) -> bool:
    """Whether switch ``name`` is at 0; 1, and one that is not set, is on.

    Raises:
        ValueError: it is something else.
    """
    text = environ.get(name, "")
    if text not in ("", "0", "1"):
        raise ValueError(f"{name} must be 0 or 1, got {text!r}: unset it, or correct it")
    return text == "0"
