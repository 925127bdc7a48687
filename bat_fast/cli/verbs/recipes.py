"""``bat-fast recipes``."""

from __future__ import annotations

from bat_fast.cli.parser import Parser
from bat_fast.config import recipes

SUMMARY = "what `train --recipe` knows, one line each"


def run(words: list[str]) -> None:
    """Print the name and the first line of every recipe."""
    Parser("recipes", "The recipes that come with bat_fast, one line each.").parse_args(words)
    files = recipes()
    width = max(map(len, files)) + 2
    for name, path in files.items():
        print(f"{name:<{width}}{path.read_text().partition(chr(10))[0].removeprefix('# ')}")
