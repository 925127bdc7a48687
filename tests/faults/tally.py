"""What the faults came to: `make reliability` collects the lines and writes docs/reliability.md."""

import json
import os
from pathlib import Path


def tally(kind: str, fault: str, tried: int, noticed: int, lost: int) -> None:
    """Add a line to the file that BAT_FAST_TALLY names, if it names one.

    Args:
        kind: ``damage`` of files, ``calls`` of operators, or ``cases`` of whole runs.
        fault: in words.
        tried: how many.
        noticed: of them, how many were named, or refused; the others changed nothing, or were answered.
        lost: of them, how many changed a result without a word, or ended the process.
    """
    if kind != "cases":
        print(f"{fault}: {tried} tried, {noticed} named, {lost} lost")
    if path := os.environ.get("BAT_FAST_TALLY"):
        line = {"kind": kind, "fault": fault, "tried": tried, "noticed": noticed, "lost": lost}
        with Path(path).open("a") as file:
            file.write(json.dumps(line) + "\n")
