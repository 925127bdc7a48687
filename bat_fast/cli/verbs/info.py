"""``bat-fast info``."""

from __future__ import annotations

import json

from bat_fast.cli.parser import Parser

SUMMARY = "versions, devices, and which operators run natively"


def run(words: list[str]) -> None:
    """Print what this installation is made of."""
    parser = Parser("info", "Versions, devices, and which operators run natively.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    as_json = parser.parse_args(words).json
    from bat_fast.report.info import collect_info, print_info

    info = collect_info()
    if as_json:
        print(json.dumps(info, indent=2))
    else:
        print_info(info)
