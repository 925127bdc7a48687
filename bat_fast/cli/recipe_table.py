"""docs/recipes.md: what is published beside what the recipes of this project say, setting by setting."""

from __future__ import annotations

import dataclasses
from typing import Any

from bat_fast import methods
from bat_fast.cli.settings import read_command
from bat_fast.config.limits import in_fractions
from bat_fast.config.published import Published, published
from bat_fast.runs.plain import flat, plain

_INTRODUCTION = """\
# Recipes: ours, and as published

`NAME` is ours: one protocol for all methods of a data set, so that they compare. `NAME-published` says what a
published script does; its repository, commit and lines stand below. `bat-fast recipes` lists both.
This page is made from the code: `bat-fast recipes --markdown > docs/recipes.md`. Its published values are
written down in `bat_fast/recipes/published.toml`, and a test holds the recipes to them.
"""


def settings_of(recipe: str, *, fractions: bool = False) -> dict[str, Any]:
    """All settings of a recipe by name, such as ``attack.eps``, with the defaults of its method.

    Args:
        recipe: its name.
        fractions: say parts of the run as fractions, also where the recipe has epochs.
    """
    config = read_command(["--recipe", recipe]).config
    config = in_fractions(config) if fractions else config
    name, given = config.method["name"], {k: v for k, v in config.method.items() if k != "name"}
    method: Any = methods.create(name, **given)
    options = {field.name: getattr(method, field.name) for field in dataclasses.fields(method) if field.init}
    return flat(plain(config) | {"method": {"name": name, **options}})


def markdown() -> str:
    """docs/recipes.md.

    Raises:
        KeyError: ours differs from a published value in a setting that the table gives no reason for.
    """
    table = published()
    parts = [_INTRODUCTION]
    parts += [_section(name, run, dict(table.why)) for name, run in table.recipes.items()]
    rows = [f"| `{name}` | {why} |" for name, why in table.none.items()]
    parts.append("\n".join(["## Without a published script", "", "| recipe | why |", "|---|---|", *rows, ""]))
    return "\n".join(parts)


def _section(name: str, run: Published, why: dict[str, str]) -> str:
    theirs, ours = settings_of(name), settings_of(run.ours)
    compared = settings_of(name, fractions=True), settings_of(run.ours, fractions=True)
    lines = [f"## {name}", "", f"Source: {run.source}.", ""]
    if run.reported:
        lines += [f"Reported: {run.reported}.", ""]
    lines += [f"| setting | published | ours, `{run.ours}` | equal, or why not |", "|---|---|---|---|"]
    for setting in flat(dict(run.settings)):
        value, other = theirs[setting], ours.get(setting)
        same = compared[0][setting] == compared[1].get(setting)
        verdict = "=" if same else why[setting]
        lines.append(f"| `{setting}` | {_shown(value)} | {_shown(other)} | {verdict} |")
    gaps = [f"- {gap}" for gap in run.gaps]
    return "\n".join([*lines, "", "Not as published, for want of a setting:", "", *gaps, ""])


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
