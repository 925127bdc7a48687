"""docs/reliability.md from the lines that `tally` has written: python tests/faults/table.py LINES PAGE"""

import json
import sys
from collections import defaultdict
from pathlib import Path

HEAD = """# Faults tried, and what came of them

Written by `make reliability` from what the tests of `tests/faults` counted. *Named*: one line says which
file or process it is. *Refused*: by an exception. What is neither had no effect on any result, or was
answered. *Lost*: another result without a word, a crash, or memory that was read or written outside of an
argument.

"""
TITLES = {
    "damage": ("Damaged files", "flipped bits and lost pages of"),
    "calls": ("Native operators", "calls"),
    "cases": ("Whole runs", "cases"),
}


def main(lines: str, page: str) -> None:
    """Add the lines up by kind and fault."""
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for text in Path(lines).read_text().splitlines():
        line = json.loads(text)
        total = sums[line["kind"], line["fault"]]
        for place, name in enumerate(("tried", "noticed", "lost")):
            total[place] += line[name]
    parts = []
    for kind, (title, column) in TITLES.items():
        rows = [(fault, *numbers) for (of, fault), numbers in sums.items() if of == kind]
        if not rows:
            continue
        named = {"damage": " named |", "calls": " refused |", "cases": ""}[kind]
        parts.append(
            f"## {title}\n\n| {column} | tried |{named} lost |\n|---|---|{'---|' if named else ''}---|\n"
        )
        for fault, tried, noticed, lost in sorted(rows):
            parts.append(f"| {fault} | {tried:,} |{f' {noticed:,} |' if named else ''} {lost:,} |\n")
        parts.append("\n")
    Path(page).write_text(HEAD + "".join(parts).rstrip() + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
