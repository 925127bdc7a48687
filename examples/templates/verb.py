"""A verb to copy: bat_fast/cli/verbs/NAME.py, and ``bat-fast NAME`` works.

Here: the number of weights of a saved model.
"""

from __future__ import annotations

from bat_fast.cli.parser import Parser

SUMMARY = "number of weights of a saved model: bat-fast template runs/my-run"  # its line of bat-fast --help


def run(words: list[str]) -> None:
    """Read the words, and call what does the work: a verb computes nothing itself."""
    from bat_fast.evaluate import load_run  # here, so that `bat-fast --help` does not load it

    parser = Parser("template", "The number of weights of a saved model.")
    parser.add_argument("run", help="run folder or model.safetensors")
    options = parser.parse_args(words)  # a wrong word is a ValueError: one line, exit status 2
    model, _ = load_run(options.run)
    print(f"{sum(weight.numel() for weight in model.parameters()):,} weights")
