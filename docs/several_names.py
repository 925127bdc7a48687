"""For the reference: where a docstring describes two arguments or two errors in one line, both get one."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ENTRY = re.compile(r"^( +)(\w+(?:,\s+\w+)+): (.*(?:\n\1 +\S.*)*)$", re.MULTILINE)
_ERROR = re.compile(r"\.\s+(\w+Error):")
_FEW = 3  # more have their description in another class, and stay together


class SeveralNames(griffe.Extension):
    """Gives each of a few names an entry of its own, and puts many in one line."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            arguments, raises, errors = obj.docstring.value.partition("\nRaises:\n")
            obj.docstring.value = (
                _ENTRY.sub(_one_each, arguments) + raises + _ERROR.sub(r".\n    \1:", errors)
            )


def _one_each(entry: re.Match[str]) -> str:
    indent, text = entry[1], entry[3]
    names = re.split(r",\s+", entry[2])
    names = names if len(names) <= _FEW else [", ".join(names)]
    return "\n".join(f"{indent}{name}: {text}" for name in names)
