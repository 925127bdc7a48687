"""``bat-fast recipes``."""

from __future__ import annotations

from bat_fast.cli.parser import Parser
from bat_fast.config import recipes
from bat_fast.config.published import published

SUMMARY = "what `train --recipe` knows, one line each"


def run(words: list[str]) -> None:
    """Print every recipe: its name, whose settings it has, its first line, and what is reported of it."""
    parser = Parser(
        "recipes",
        "The recipes that come with bat_fast, one line each: ours, with one protocol for all methods, and "
        "those that repeat a published script.",
    )
    parser.add_argument("--markdown", action="store_true", help="print docs/recipes.md")
    if parser.parse_args(words).markdown:
        from bat_fast.cli.recipe_table import markdown

        print(markdown(), end="")
        return
    files, known = recipes(), published().recipes
    width = max(map(len, files)) + 2
    for name, path in files.items():
        first = path.read_text().partition("\n")[0].removeprefix("# ")
        figures = f"; reported: {known[name].reported}" if name in known and known[name].reported else ""
        print(f"{name:<{width}}{'published' if name in known else 'ours':<11}{first}{figures}")
