"""The options that benchmarks share, and where what they found goes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def parser(about: str, seconds: float, each: str) -> argparse.ArgumentParser:
    """A command line with ``--device``, ``--seconds`` for ``each`` and ``--json``; ``about`` is its help."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    made.add_argument("--seconds", type=float, default=seconds, help=f"time for {each}")
    made.add_argument("--json", type=Path, help="write everything here")
    return made


def write(file: Path | None, found: dict[str, Any]) -> None:
    """Write what is known so far."""
    if file is not None:
        file.write_text(json.dumps(found, indent=1) + "\n")
