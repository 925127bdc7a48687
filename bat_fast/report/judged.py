"""Pictures of what `bat-fast eval --out` has found of a run, and of the AutoAttack in its results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bat_fast.report.figure import BLUE, CYCLE, ORANGE, figure, svg_of, tidy
from bat_fast.report.run import Run
from bat_fast.runs.metrics import attacks_on, title


def with_evaluations(runs: Sequence[Run], files: Sequence[Path]) -> list[Run]:
    """The ``runs``, each with those of the evaluations in ``files`` that are of its model.

    Raises:
        ValueError: a file is no evaluation, or of none of the runs. OSError: it cannot be read.
    """
    found: list[list[dict[str, Any]]] = [[] for _ in runs]
    for file in files:
        try:
            content = json.loads(file.read_text())
            model = Path(content["model"]).resolve()
            if content["split"] not in ("train", "val", "test") or not isinstance(content["metrics"], dict):
                raise ValueError(content["split"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"--eval: {file} was not written by bat-fast eval --out") from error
        places = [n for n, run in enumerate(runs) if run.path.resolve() in (model, model.parent)]
        if not places:
            raise ValueError(f"--eval: {file} is about {content['model']}, which is none of the runs")
        found[places[0]].append(content)
    return [run._replace(evaluations=tuple(more)) for run, more in zip(runs, found, strict=True)]


def judged(run: Run) -> list[dict[str, Any]]:
    """The pictures of one run, each with ``title``, ``svg``, ``alt`` and ``note``."""
    made: list[dict[str, Any]] = []
    for number, one in enumerate([(run.results or {}).get("autoattack") or {}, *run.evaluations]):
        name = f"judged-{run.letter}-{number}"
        attack = one.get("attack", {})
        ball = (
            f"{attack.get('norm', '')} eps {float(attack.get('eps', 0)):.4g}, {one.get('n_examples')} images"
        )
        if one.get("broken_by"):
            left = survivors(one["broken_by"], one["n_examples"])
            told = ", ".join(f"{count} after {what}" for what, count in left)
            alt = f"Images of run {run.letter} that are still right: {told}, of {one['n_examples']}."
            note = f"{ball}. Each attack sees what those above it have left."
            made.append({"title": "AutoAttack", "svg": _waterfall(left, one, name), "alt": alt, "note": note})
        if one.get("curve"):
            lines = _lines(one)
            told = "; ".join(
                f"{what}: " + ", ".join(f"{value:.0%} at {eps:.3g}" for eps, value, _ in points)
                for what, points in lines.items()
            )
            alt = f"Accuracy of run {run.letter} against the radius. {told}."
            note = f"By bat-fast eval, {one['n_examples']} images; bands are 95 % intervals."
            made.append(
                {"title": "Security curve", "svg": _curve(lines, f"{name}-c"), "alt": alt, "note": note}
            )
    return made


def survivors(broken: dict[str, int], count: int) -> list[tuple[str, int]]:
    """How many of ``count`` images are right as they are and after each attack, by its title."""
    left = []
    for name, lost in broken.items():
        count -= lost
        left.append((_shown(name), count))
    return left


def _shown(attack: str, described: dict[str, Any] | None = None) -> str:
    """An attack as people write it; half a character, which JSON may hold and no font draws, becomes "?"."""
    return title(attack.replace("-", "_"), described).encode("utf-8", "replace").decode()


def _waterfall(left: list[tuple[str, int]], one: dict[str, Any], name: str) -> str:
    total = one["n_examples"]
    with figure(8, 0.9 + 0.32 * len(left), page=True) as made:
        axes = made.subplots()
        before = total
        for place, (_, count) in enumerate(left):
            axes.barh(place, count, color=BLUE)
            axes.barh(place, before - count, left=count, color=ORANGE)
            axes.text(total * 1.01, place, f"{count} (-{before - count})", va="center")
            before = count
        axes.set_yticks(range(len(left)), [what for what, _ in left])
        axes.invert_yaxis()
        axes.set_xlim(0, total * 1.12)
        axes.set_xlabel("images that are right (orange: lost to this attack)")
        tidy(axes)
        return svg_of(made, name)


def _lines(one: dict[str, Any]) -> dict[str, list[tuple[float, float, tuple[float, float]]]]:
    """Of each attack the radius, accuracy and its interval."""
    split, found = str(one.get("split", "test")), {}
    for attack in attacks_on(split, one["metrics"]):
        name = f"{split}/{attack}_acc"
        if attack != "clean":
            found[_shown(attack, one.get("attacks", {}).get(attack))] = [
                (float(row["eps"]), row["metrics"][name], tuple(row["intervals"][name]))
                for row in one["curve"]
            ]
    return found


def _curve(lines: dict[str, Any], name: str) -> str:
    from matplotlib.ticker import PercentFormatter

    with figure(8, 3.2, page=True) as made:
        axes = made.subplots()
        for number, (what, points) in enumerate(lines.items()):
            xs, ys, bands = zip(*points, strict=True)
            colour = CYCLE[number % len(CYCLE)]
            axes.fill_between(xs, *zip(*bands, strict=True), color=colour, alpha=0.15, linewidth=0)
            axes.plot(xs, ys, color=colour, marker="o", markersize=4, label=what)
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("radius of the attack")
        axes.set_ylabel("accuracy")
        tidy(axes)
        axes.legend(frameon=False)
        return svg_of(made, name)
