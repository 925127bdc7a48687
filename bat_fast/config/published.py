"""What published scripts do, as `recipes/published.toml` holds it. Standard library only."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published run."""

    ours: str
    """The recipe of this project that it stands beside."""
    source: str
    """Repository, commit, and the file and lines that say so."""
    settings: Mapping[str, Any]
    """Its settings, as a recipe has them; what is not among them has its default."""
    gaps: tuple[str, ...] = ()
    """What the recipe does otherwise, for want of a setting."""
    reported: str = ""
    """The figures that the authors report of it."""


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """All of them."""

    recipes: Mapping[str, Published]
    """By the name of the recipe that repeats them."""
    none: Mapping[str, str] = field(default_factory=dict)
    """Recipes of this project that have no published counterpart, and why."""
    why: Mapping[str, str] = field(default_factory=dict)
    """Why ours differs, by setting."""


def published() -> PublishedTable:
    """Read `recipes/published.toml`."""
    file = Path(str(resources.files("bat_fast"))) / "recipes" / "published.toml"
    tree = tomllib.loads(file.read_text(encoding="utf-8"))
    runs = {
        name: Published(**(entry | {"gaps": tuple(entry["gaps"])})) for name, entry in tree["recipes"].items()
    }
    return PublishedTable(recipes=runs, none=tree["none"], why=tree["why"])
