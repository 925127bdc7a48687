"""Runs beside each other: those that differ by the seed alone are repetitions of one experiment."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple

from bat_fast.ratio import Ratio
from bat_fast.report.intervals import Mean, mean_of
from bat_fast.runs.metrics import attacks_on, metric, title
from bat_fast.runs.results import read_results, settings_of

# Where and how a run was computed, which is no part of the experiment.
_NO_PART = frozenset(
    {
        "seed", "device", "checkpoint_every", "data.root", "data.workers", "data.loader", "eval.batch_size",
        "optim.grad_checkpointing",
    }
)  # fmt: skip
EPOCH, SECONDS = "epoch", "perf/train_s"


class Group(NamedTuple):
    """Finished runs with the same settings but for the seed."""

    name: str
    """``A``, ``B``, ... in the order in which they were named."""
    paths: list[Path]
    results: list[dict[str, Any]]
    settings: dict[str, Any]
    """By their names, such as ``attack.eps``, without the seed."""

    def mean(self, name: str) -> Mean | None:
        """The mean of a metric, of the epoch or of the seconds, over the runs that have it."""
        values = [one.get(EPOCH) if name == EPOCH else one["metrics"].get(name) for one in self.results]
        known = [float(value) for value in values if value is not None]
        return mean_of(known) if known else None


def letters(number: int) -> str:
    """``A`` to ``Z``, then ``AA``, ``AB``, ..., for 0, 1, ..."""
    rest, last = divmod(number, len(ascii_uppercase))
    return (letters(rest - 1) if rest else "") + ascii_uppercase[last]


def group_runs(paths: Iterable[Path]) -> list[Group]:
    """Read finished runs, and put those together that differ by the seed alone, each seed once.

    Raises:
        FileNotFoundError, ValueError: one is no finished run; or it is named twice, also by another path.
    """
    groups: list[Group] = []
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise ValueError(f"{path} is named twice: a run counts once")
        seen.add(path.resolve())
        results = read_results(path)
        settings = {k: v for k, v in settings_of(results["config"]).items() if k not in _NO_PART}
        for group in groups:
            known = {one["seed"] for one in group.results}  # the same seed again says nothing of chance
            if results["seed"] not in known and not differing([group.settings, settings]):
                group.paths.append(path)
                group.results.append(results)
                break
        else:
            groups.append(Group(letters(len(groups)), [path], [results], settings))
    return groups


def metric_names(groups: list[Group]) -> list[str]:
    """The accuracies on test and val that any run has, clean ones first."""
    known = dict.fromkeys(name for group in groups for one in group.results for name in one["metrics"])
    return [
        metric(split, attack)
        for split in ("test", "val")
        for attack in sorted(attacks_on(split, known), key=lambda attack: attack != "clean")
    ]


def differences(groups: list[Group]) -> dict[str, list[Any]]:
    """The settings in which the groups differ, with the value of each group; None where it has none."""
    return differing([group.settings for group in groups])


def differing(settings: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The settings that are not the same everywhere, with their values; None where there is none."""
    names = dict.fromkeys(name for these in settings for name in these)
    values = {name: [these.get(name) for these in settings] for name in names}
    return {name: these for name, these in values.items() if len({_number(one) for one in these}) > 1}


def _number(value: Any) -> str:
    """A value such that the same number is the same, as 1/10 and 0.1 are."""
    try:
        return repr(float(Ratio(value)))
    except ValueError:
        return repr(value)


def comparison(groups: list[Group]) -> dict[str, Any]:
    """What ``bat-fast compare --json`` prints: ``groups`` and the settings that ``differ``; fractions in
    [0, 1], seconds, and half widths of 95 % t-intervals over seeds (null for one run)."""
    names = [*metric_names(groups), EPOCH, SECONDS]
    return {
        "groups": [
            {
                "name": group.name,
                "runs": [
                    {"path": str(path), "seed": one.get("seed"), EPOCH: one.get(EPOCH), **one["metrics"]}
                    for path, one in zip(group.paths, group.results, strict=True)
                ],
                "metrics": {name: mean._asdict() for name in names if (mean := group.mean(name))},
            }
            for group in groups
        ],
        "differ": {
            name: {group.name: value for group, value in zip(groups, values, strict=True)}
            for name, values in differences(groups).items()
        },
    }


def cell(name: str, mean: Mean | None) -> str:
    """A mean as people read it, with its half width: accuracies in percent, epochs, seconds."""
    if mean is None:
        return "-"
    scale, digits = (1.0, 1) if name in (EPOCH, SECONDS) else (100.0, 2)
    if mean.half_width is None:
        return f"{scale * mean.value:.{0 if name == EPOCH else digits}f}"
    return f"{scale * mean.value:.{digits}f} ± {scale * mean.half_width:.{digits}f}"


def column(name: str) -> str:
    """The heading of a column of `cell`: ``test PGD-20 %``."""
    if name in (EPOCH, SECONDS):
        return {EPOCH: "best epoch", SECONDS: "training s"}[name]
    split = name.partition("/")[0]
    return f"{split} {title(attacks_on(split, [name])[0])} %"


def print_comparison(groups: list[Group]) -> None:
    """Print the groups, their means with 95 % t-intervals over seeds, and what differs between them."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # no markup: a folder may be called [bold]

    console = Console(width=None if sys.stdout.isatty() else 240)
    names = [*metric_names(groups), EPOCH, SECONDS]
    table = Table()
    table.add_column("")
    for heading in ("runs", *map(column, names)):
        table.add_column(heading, justify="right")
    for group in groups:
        cells = [group.name, str(len(group.paths)), *(cell(name, group.mean(name)) for name in names)]
        table.add_row(*map(Text, cells))
    console.print(table)
    differ = differences(groups)
    if differ:
        table = Table()
        table.add_column("setting")
        for group in groups:
            table.add_column(group.name)
        for name, values in differ.items():
            table.add_row(*map(Text, (name, *("-" if value is None else str(value) for value in values))))
        console.print(table)
    for group in groups:
        seeds = ", ".join(str(one.get("seed")) for one in group.results)
        runs = ", ".join(map(str, group.paths))
        print(f"{group.name}  {runs} (seed{'s' * (len(group.paths) > 1)} {seeds})")
    if any(len(group.paths) > 1 for group in groups):
        print("± is half the width of the 95 % t-interval of the mean over seeds")
    else:
        print("one run each: without further seeds nothing is known of chance (bat-fast train --seeds 0 1 2)")
