"""The tables that a person reads at the end. Percent here, fractions in the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bat_fast.report.words import method_text
from bat_fast.runs.metrics import attacks_on, metric, title


def print_results(results: dict[str, Any], folder: Path, picture: Path) -> None:
    """What a finished run achieved, and where to find it."""
    _print_metrics(
        {name: value for name, value in results["metrics"].items() if name.startswith(("val/", "test/"))},
        f"{method_text(results['config']['method'])}, best epoch {results['epoch']} "
        f"of {results['config']['epochs']} (chosen on val)",
    )
    print(f"run folder  {folder}\npicture     {picture}")


def print_evaluation(evaluation: dict[str, Any], path: object) -> None:
    """The accuracies of a saved model."""
    attack = evaluation["attack"]
    title = f"{path}: {attack['norm']} eps {attack['eps']:.4g}, {evaluation['n_examples']} images"
    _print_metrics(evaluation["metrics"], title)
    if "broken_by" in evaluation:
        print("broken by " + ", ".join(f"{name} {count}" for name, count in evaluation["broken_by"].items()))
    for note in evaluation.get("notes", ()):
        print(f"WARNING  {note}")


def _print_metrics(metrics: dict[str, float], heading: str) -> None:
    from rich.console import Console
    from rich.table import Table

    splits = list(dict.fromkeys(name.partition("/")[0] for name in metrics))
    print(heading)  # not as the table's title: rich would break it at the table's width
    table = Table()
    table.add_column("split")
    table.add_column("clean", justify="right")
    table.add_column("robust", justify="right")
    table.add_column("attack")
    for split in splits:
        clean = f"{metrics[metric(split, 'clean')]:.2%}"
        for attack in attacks_on(split, metrics):
            if attack != "clean":
                table.add_row(split, clean, f"{metrics[metric(split, attack)]:.2%}", title(attack))
    Console().print(table)
