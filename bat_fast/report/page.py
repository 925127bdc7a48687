"""The report of one run or several: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from bat_fast import __version__
from bat_fast._atomic import atomic_write, writing
from bat_fast.report.compare import differing, group_runs
from bat_fast.report.findings import checks, share
from bat_fast.report.run import Run
from bat_fast.report.sections import card, details, means, shared, table
from bat_fast.report.verdict import verdict
from bat_fast.runs.finding import Finding
from bat_fast.runs.metrics import metric
from bat_fast.runs.results import settings_of


def write_page(runs: Sequence[Run], path: Path, command: str = "bat-fast report") -> int:
    """Write the report of ``runs`` to ``path``, and return its size in bytes.

    Args:
        runs: at least one; `bat_fast.report.run.read_run` reads them.
        path: of the HTML file.
        command: that made it, for the reader who wants it again.
    """
    return save(render(runs, command), path)


def save(text: str, path: Path) -> int:
    """Write a page to ``path``, and return its size in bytes."""
    content = text.encode("utf-8", "replace")  # names of files need not be Unicode
    with writing(path, "give another file with --out"):
        path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda file: file.write(content))
    return len(content)


def render(runs: Sequence[Run], command: str = "bat-fast report") -> str:
    """The report as text. Everything that comes from a run folder is escaped; no script but its own runs."""
    judged = {run.letter: _checks(run) for run in runs}
    differ = differing([settings_of(run.config) for run in runs])
    groups = group_runs([run.path for run in runs if run.results is not None])
    columns, cells = table(runs, groups)
    mean_columns, rows = means(groups, runs)
    shown = [
        card(run, number, judged[run.letter]) | details(run) | {"cells": cells[number]}
        for number, run in enumerate(runs)
    ]
    names = ", ".join(one["name"] for one in shown)
    return fill(
        "page.html",
        heading=f"Robustness of {names}",
        verdict=verdict(runs, groups, judged, differ),
        runs=shown,
        columns=columns,
        means=rows,
        mean_columns=mean_columns,
        differ=differ,
        pictures=shared(runs),
        island=_island(runs, judged),
        command=command,
    )


def fill(template: str, **values: Any) -> str:
    """A template of ``report/page/`` with ``values``, which are escaped, and style, script and version."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    script = _part("page.js")
    page = Environment(
        loader=FunctionLoader(_part),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return page.get_template(template).render(
        version=__version__,
        script=_trusted(script),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        style=_trusted(_part("style.css")),
        **values,
    )


def _checks(run: Run) -> list[Finding]:
    if run.examined is None:
        return []
    return checks(run.examined, run.metrics.get(metric("test", run.examined.attack)))


def _island(runs: Sequence[Run], judged: dict[str, list[Finding]]) -> list[dict[str, Any]]:
    """The numbers of the page, for programs: ``results.json`` of each run, and what was measured for it."""
    found: list[dict[str, Any]] = []
    for run in runs:
        more: dict[str, Any] = {}
        if (seen := run.examined) is not None:
            more = {
                "n": len(seen.labels),
                "attack": seen.attack,
                "norm": seen.norm,
                "eps": seen.eps,
                "radii": [[radius, share(mask)] for radius, mask in seen.radii.items()],
                "steps": [[count, share(mask)] for count, mask in seen.steps.items()],
                "checks": {check.name: not check.raised for check in judged[run.letter]},
            }
        found.append({"letter": run.letter, "path": str(run.path), "results": run.results, "examined": more})
    return found


def _part(name: str) -> str:
    return (resources.files("bat_fast.report") / "page" / name).read_text(encoding="utf-8")


def _trusted(text: str) -> Any:
    """A file of this package, which is not escaped."""
    from markupsafe import Markup

    return Markup(text)
