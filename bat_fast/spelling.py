"""Words that are nearly right: what was meant, and what to say. Standard library only."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def _letters(word: str) -> str:
    """``word`` without what people spell in different ways: case, dashes and underscores."""
    return word.casefold().replace("-", "").replace("_", "").replace(" ", "")


def meant(word: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that is ``word`` but for case, dashes and underscores; None where none is."""
    names = list(known)
    if word in names:
        return word
    same = [name for name in names if _letters(name) == _letters(word)]
    return same[0] if len(same) == 1 else None


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that is spelt most like ``word``; None where none is near."""
    names = {_letters(name): name for name in known}
    near = difflib.get_close_matches(_letters(word), names, n=1)
    return names[near[0]] if near else None


def hint(word: str, known: Iterable[str]) -> str:
    """``; did you mean NAME?``, with the nearest of ``known``; nothing where none is near."""
    near = nearest(word, known)
    return f"; did you mean {near}?" if near else ""
