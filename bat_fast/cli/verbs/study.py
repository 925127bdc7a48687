"""``bat-fast study``."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from bat_fast.cli import studies
from bat_fast.spelling import hint, meant

SUMMARY = "what a method memorises: bat-fast study memorisation --recipe digits-pgd-at"


def run(words: list[str]) -> None:
    """Hand the words to the study that the first of them names."""
    names = {found.name.replace("_", "-"): found.name for found in pkgutil.iter_modules(studies.__path__)}
    if not words or words[0] in ("-h", "--help"):
        lines = [f"  {name:<16}{import_module(_path(file)).SUMMARY}" for name, file in names.items()]
        print(
            "\n".join(
                ["usage: bat-fast study NAME ...", "", *lines, "", "`bat-fast study NAME --help` says more."]
            )
        )
        return
    name = meant(words[0], names)
    if name is None:
        raise ValueError(f"no study {words[0]!r}; there are {', '.join(names)}{hint(words[0], names)}")
    import_module(_path(names[name])).run(words[1:])


def _path(file: str) -> str:
    return f"{studies.__name__}.{file}"
