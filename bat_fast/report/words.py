"""Runs, methods and radii in words, for headings."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def method_text(options: dict[str, Any]) -> str:
    """A method and its options: ``bat alpha=1``."""
    rest = [f"{key}={value}" for key, value in options.items() if key != "name"]
    return " ".join([str(options["name"]), *rest])


def run_title(config: dict[str, Any], path: Path) -> str:
    """The run in one line: its folder, method, data, norm, radius and seed.

    Args:
        config: as `bat_fast.runs.folder.plain` makes it and ``results.json`` holds it.
        path: the run folder.
    """
    attack = config["attack"]
    name = path.name or path.resolve().name
    ball = f"{attack['norm']} eps {attack['eps']}"
    return "  ·  ".join(
        [name, method_text(config["method"]), config["data"]["name"], ball, f"seed {config['seed']}"]
    )
