"""The parts of a report, as plain values that the template writes down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bat_fast.report import pictures
from bat_fast.report.compare import EPOCH, Group, cell, column, metric_names
from bat_fast.report.figure import CYCLE
from bat_fast.report.findings import by_class, margins, most_confused, seen_as, share
from bat_fast.report.gallery import triple
from bat_fast.report.intervals import Mean, wilson
from bat_fast.report.judged import judged
from bat_fast.report.landscape import landscape
from bat_fast.report.recorded import recorded
from bat_fast.report.run import Run
from bat_fast.report.verdict import images_of
from bat_fast.report.words import method_text, run_name
from bat_fast.runs.examined import Examined
from bat_fast.runs.finding import Finding
from bat_fast.runs.metrics import metric, title
from bat_fast.runs.plain import flat

_MATRIX = 20  # classes of a table of confusions; beyond them the pairs are listed
_LISTED = 200  # classes in the table of classes
_COLUMNS = (EPOCH, "perf/train_s")
_GALLERIES = {
    "fragile": "Right, and broken by the smallest attacks",
    "sturdy": "The most robust",
    "wrong": "Wrong without an attack",
}


def card(run: Run, number: int, checks: list[Finding]) -> dict[str, Any]:
    """The verdict on a run, and its name."""
    attack, n = run.config["attack"], images_of(run)
    numbers = []
    judged = (run.results or {}).get("autoattack", {}).get("n_examples")
    for name, count in (("clean", n), (run.robust, n), ("aa", judged)):
        value = run.metrics.get(metric("test", name)) if name else None
        if value is not None:
            label = title(name or "")
            low, high = wilson(value, count) if count else (None, None)
            numbers.append({"label": label, "text": f"{100 * value:.1f} %", "low": low, "high": high})
    if (fall := run.overfitting()) is not None:
        text = f"{100 * fall:.1f} points"
        numbers.append({"label": "robust overfitting", "text": text, "low": None, "high": None})
    return {
        "letter": run.letter,
        "colour": CYCLE[number % len(CYCLE)],
        "name": run_name(run.path),
        "path": str(run.path),
        "method": method_text(run.config["method"]),
        "data": run.config["data"]["name"],
        "ball": f"{attack['norm']} eps {attack['eps']}",
        "seed": run.config["seed"],
        "numbers": numbers,
        "checks": checks,
        "unmeasured": run.unmeasured,
        "epochs": run.config["epochs"],
        "epochs_done": len(run.rows),
    }


def table(runs: Sequence[Run], groups: list[Group]) -> tuple[list[str], list[list[dict[str, Any]]]]:
    """Headings and cells of the table of runs; those that have not finished have empty cells."""
    names = [*metric_names(groups), *_COLUMNS, "perf/img_s", "perf/peak_mem_mib"]
    more = {"perf/img_s": "images/s", "perf/peak_mem_mib": "MiB"}
    rows = []
    for run in runs:
        cells = []
        for name in names:
            value = run.best if name == EPOCH else run.metrics.get(name)
            text = cell(name, None if value is None else Mean(value, None, 1))
            if name in more and value is not None:
                text = f"{value:,.0f}"
            cells.append({"value": -1 if value is None else value, "text": text})
        rows.append(cells)
    return [more.get(name) or column(name) for name in names], rows


def means(groups: list[Group], runs: Sequence[Run]) -> tuple[list[str], list[dict[str, Any]]]:
    """Headings and rows of the table over seeds; no row where no group has several."""
    if all(len(group.paths) < 2 for group in groups):
        return [], []
    letters = {run.path: run.letter for run in runs}
    names = [*metric_names(groups), *_COLUMNS]
    rows = [
        {
            "runs": ", ".join(letters[path] for path in group.paths),
            "n": len(group.paths),
            "cells": [
                {"value": mean.value if mean else -1, "text": cell(name, mean)}
                for name, mean in ((name, group.mean(name)) for name in names)
            ],
        }
        for group in groups
    ]
    return [column(name) for name in names], rows


def details(run: Run) -> dict[str, Any]:
    """All about one run but its card."""
    found = run.examined
    parts: dict[str, Any] = {
        "curves": _picture("Curves", pictures.curves(run), _told(run)) if run.rows else None,
        "more": [*([recorded(run.samples, run.letter)] if run.samples else []), *judged(run)],
        "versions": {**(run.results or {}).get("versions", {}), "git": (run.results or {}).get("git")},
        "hashes": run.hashes,
        "settings": flat(run.config),
        "classes": None,
    }
    return parts if found is None else parts | _examined(found, run.letter)


def shared(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The pictures that show all runs."""
    several = len(runs) > 1
    what = f"runs {', '.join(run.letter for run in runs)}" if several else f"run {runs[0].letter}"
    made = [
        ("Robust accuracy by epoch", pictures.overlay(runs) if several else None, ""),
        (
            "Accuracy against the radius",
            pictures.security(runs),
            "The dotted line is the radius of the training; bands are 95 % intervals.",
        ),
        (
            "Accuracy against the steps of the attack",
            pictures.by_steps(runs),
            "Flat at its end: the attack has converged.",
        ),
        ("What the method measured", pictures.own_metrics(runs), ""),
    ]
    told = " ".join(_told(run) for run in runs)
    return [_picture(name, svg, f"{name}, {what}. {told}", note) for name, svg, note in made if svg]


def _picture(name: str, svg: str, alt: str, note: str = "") -> dict[str, Any]:
    return {"title": name, "svg": svg, "alt": alt, "note": note}


def _told(run: Run) -> str:
    """A run in a sentence, for who does not see the picture."""
    text = f"Run {run.letter}, {len(run.rows)} epochs"
    if run.val_robust and (points := run.series(run.val_robust)):
        epoch, best = max(points, key=lambda point: point[1])
        text += f": robust {run.measured} accuracy from {points[0][1]:.0%} to {points[-1][1]:.0%}, "
        text += f"{best:.0%} in epoch {epoch}"
    if found := run.examined:
        values = ", ".join(f"{share(mask):.0%} at {at:.3g}" for at, mask in found.radii.items())
        text += f"; accuracy by radius: {values}"
    return f"{text}."


def _examined(found: Examined, letter: str) -> dict[str, Any]:
    rows = by_class(found)
    matrix = found.clean.shape[1] <= _MATRIX
    kinds = (("clean", found.clean), (f"under {title(found.attack)}", found.attacked))
    return {
        "n": len(found.labels),
        "total": found.total,
        "split": found.split,
        "attack": title(found.attack),
        "eps": f"{found.eps:.4g}",
        "norm": found.norm,
        "device": found.device,
        "seconds": f"{found.seconds:.1f}",
        "classes": rows[:_LISTED],
        "more_classes": max(0, len(rows) - _LISTED),
        "confusions": [_matrix(found, name, logits) for name, logits in kinds] if matrix else None,
        "pairs": None if matrix else most_confused(found, 30),
        "confidence": _picture(
            "Confidence", pictures.confidence(found, letter), _confidence_told(found, letter),
            "Margins below 0 are wrong. On the dotted diagonal confidence is as often right as it says.",
        ),
        "around": None if found.around is None else landscape(found.around, letter),
        "galleries": [
            {"title": heading, "images": [_example(found, place, kind) for place in found.examples[kind]]}
            for kind, heading in _GALLERIES.items()
            if found.examples.get(kind)
        ],
    }  # fmt: skip


def _matrix(found: Examined, name: str, logits: Tensor) -> dict[str, Any]:
    counts = seen_as(logits, found.labels)
    names = _names(found)
    total = counts.sum(1).clamp(min=1)
    return {
        "title": name,
        "names": names,
        "rows": [
            {
                "name": names[true],
                "cells": [
                    {"n": n, "hit": seen == true, "share": n / int(total[true])}
                    for seen, n in enumerate(row)
                ],
            }
            for true, row in enumerate(counts.tolist())
        ],
    }  # fmt: skip


def _names(found: Examined) -> list[str]:
    """A name for each output of the model, which may have more than the data have classes."""
    more = found.clean.shape[1] - len(found.classes)
    return [*found.classes, *(f"output {len(found.classes) + number}" for number in range(more))]


def _confidence_told(found: Examined, letter: str) -> str:
    middle = [float(margins(logits, found.labels).nanmedian()) for logits in (found.clean, found.attacked)]
    return (
        f"Margins of run {letter}: median {middle[0]:.2f} clean, {middle[1]:.2f} attacked; and calibration."
    )


def _example(found: Examined, place: int, kind: str) -> dict[str, Any]:
    example, names = found.examples[kind][place], _names(found)
    label = names[int(found.labels[place])]
    seen = [_seen(logits[place], names) for logits in (found.clean, found.attacked)]
    broken = [radius for radius, mask in found.radii.items() if not bool(mask[place])]
    where = f"breaks at radius {min(broken):.3g}" if broken else "never breaks"
    where = "wrong without an attack" if 0.0 in broken else where
    height, width = example.clean.shape[-2:]
    return {
        "src": triple(example),
        "width": 3 * width + 2,
        "height": height,
        "label": label,
        "clean": seen[0],
        "attacked": seen[1],
        "note": f"id {int(found.ids[place])}, {where}",
        "alt": f"An image of {label}, taken for {seen[0]}; its perturbation; attacked, taken for {seen[1]}.",
    }


def _seen(logits: Tensor, names: list[str]) -> str:
    """The class that the model sees [K], with its probability."""
    best = int(torch.nan_to_num(logits, nan=-torch.inf).argmax())
    return f"{names[best]} ({float(logits.softmax(0)[best]):.0%})"
