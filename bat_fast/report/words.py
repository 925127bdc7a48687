"""Runs, methods and radii in words, for headings."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def method_text(options: dict[str, Any]) -> str:
    """A method and its options: ``bat alpha=1``."""
    rest = [f"{key}={value}" for key, value in options.items() if key != "name"]
    return " ".join([str(options["name"]), *rest])


def run_name(path: Path) -> str:
    """What a run is called: its folder; the folder of ``seed-3`` says what it is a seed of."""
    whole = path if path.name else path.resolve()
    return f"{whole.resolve().parent.name}/{whole.name}" if whole.name.startswith("seed-") else whole.name


def run_title(config: dict[str, Any], path: Path) -> str:
    """The run in one line: its folder, method, data, norm, radius and seed.

    Args:
        config: as `bat_fast.runs.folder.plain` makes it and ``results.json`` holds it.
        path: the run folder.
    """
    attack = config["attack"]
    ball, seed = f"{attack['norm']} eps {attack['eps']}", f"seed {config['seed']}"
    return "  ·  ".join([run_name(path), method_text(config["method"]), config["data"]["name"], ball, seed])
