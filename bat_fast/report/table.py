"""The tables that a person reads at the end. Percent here, fractions in the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bat_fast.report.words import method_text
from bat_fast.runs.metrics import attacks_on, metric, title


def print_results(results: dict[str, Any], folder: Path, picture: Path) -> None:
    """What a finished run achieved, and where to find it."""
    chosen = results.get("chosen", "best on val")
    _print_metrics(
        {name: value for name, value in results["metrics"].items() if name.startswith(("val/", "test/"))},
        f"{method_text(results['config']['method'])}, best epoch {results['epoch']} "
        f"of {results['config']['epochs']} ({chosen})",
    )
    print(f"run folder  {folder}\npicture     {picture}")


def print_evaluation(evaluation: dict[str, Any], path: object) -> None:
    """The accuracies of a model, as `bat_fast.evaluate.judge.evaluate_model` returns them."""
    attack = evaluation["attack"]
    heading = f"{path}: {attack['norm']} eps {attack['eps']:.4g}, {evaluation['n_examples']} images"
    print(heading)
    _print_intervals(evaluation)
    for row in evaluation.get("curve", ()):
        shown = (
            f"{_title_of(name)} {value:.2%}" for name, value in row["metrics"].items() if "/clean" not in name
        )
        print(f"eps {row['written']:<8} " + ", ".join(shown))
    if "broken_by" in evaluation:
        print("broken by " + ", ".join(f"{name} {count}" for name, count in evaluation["broken_by"].items()))
    if "calibration" in evaluation:  # not in files of before
        print("calibration error " + _listed(evaluation["calibration"]))
    for name in ("typical", "atypical") if "memorised" in evaluation else ():
        part = evaluation["memorised"][name]
        print(f"{name}, {part['n_examples']} images: " + (_listed(part.get("metrics", {})) or "-"))
    if "per_class" in evaluation:
        _print_classes(evaluation["per_class"])
    if "checks" in evaluation:
        raised = sum(check["raised"] for check in evaluation["checks"])
        print(f"{len(evaluation['checks'])} checks for masked gradients, {raised or 'none'} raised")
    for note in evaluation.get("notes", ()):
        print(f"WARNING  {note}")


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{_title_of(name)} {value:.2%}" for name, value in values.items())


def _title_of(name: str) -> str:
    split = name.partition("/")[0]
    return title(attacks_on(split, [name])[0])


def _print_classes(table: dict[str, Any]) -> None:
    """The accuracy of each class, the weakest under the last attack first."""
    from rich.console import Console
    from rich.table import Table

    columns = [name for name in table if "/" in name]
    shown = Table()
    shown.add_column("class")
    for name in ("images", *map(_title_of, columns)):
        shown.add_column(name, justify="right")
    for place in sorted(range(len(table["classes"])), key=lambda place: table[columns[-1]][place]):
        shares = [f"{table[name][place]:.1%}" for name in columns]
        shown.add_row(table["classes"][place], str(table["n_examples"][place]), *shares)
    Console().print(shown)


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


def _print_intervals(evaluation: dict[str, Any]) -> None:
    """A row for each attack, with what its name leaves out, and the interval beside the accuracy."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("attack")
    table.add_column("accuracy", justify="right")
    table.add_column("95 % interval", justify="right")
    for name, value in evaluation["metrics"].items():
        attack = attacks_on(name.partition("/")[0], [name])[0]
        least, most = evaluation["intervals"][name]
        shown = title(attack, evaluation.get("attacks", {}).get(attack))  # not in files of before
        table.add_row(shown, f"{value:.2%}", f"{least:.1%} to {most:.1%}")
    Console().print(table)
