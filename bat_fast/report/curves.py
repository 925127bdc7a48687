"""The curves of a run: what it was worth epoch after epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bat_fast._atomic import atomic_write
from bat_fast.report.figure import BLUE, GREEN, GREY, ORANGE, epochs, figure, tidy
from bat_fast.runs.metrics import attacks_on, metric, title

_COLOURS = {"clean": GREEN, "fgsm": BLUE}  # single-step training shows both attacks; others are orange


def draw_curves(
    rows: list[dict[str, Any]],
    best_epoch: int,
    path: Path,
    *,
    title: str = "",
    test: dict[str, float] | None = None,
    measured: str = "val",
) -> None:
    """Draw loss, accuracies and learning rate against the epoch into a PNG file.

    Args:
        rows: the lines of ``metrics.jsonl``.
        best_epoch: the epoch chosen by validation, marked in every panel.
        path: of the PNG.
        title: above the panels.
        test: the metrics of the test split, points at the best epoch.
        measured: the split that was measured in every epoch.
    """
    with figure(12.5, 3.6) as made:
        plot_curves(made, rows, best_epoch, test or {}, measured)
        made.suptitle(title, fontsize=10)
        atomic_write(path, lambda file: made.savefig(file, format="png", dpi=150))


def plot_curves(
    made: Any,
    rows: list[dict[str, Any]],
    best_epoch: int | None,
    test: dict[str, float],
    measured: str = "val",
) -> None:
    """Put the three panels of `draw_curves` into a figure; without a best epoch nothing is marked."""
    from matplotlib.ticker import PercentFormatter

    loss, accuracy, rate = made.subplots(1, 3, width_ratios=(3, 4, 2))
    _line(loss, rows, "train/loss", "training loss", BLUE)
    loss.set_title("Loss")
    names = dict.fromkeys(key for row in rows for key in row)
    for split in ("val", "train"):
        for attack in attacks_on(split, names):
            label = f"{measured if split == 'val' else split} {_title(attack)}"
            _line(accuracy, rows, metric(split, attack), label, _colour(attack), dashed=split == "train")
    for attack in attacks_on("test", test) if best_epoch is not None else ():
        value, look = (
            test[metric("test", attack)],
            {"marker": "*", "markersize": 11, "linestyle": "none", "zorder": 5},
        )
        label = f"test {_title(attack)} {value:.1%}"
        accuracy.plot(best_epoch, value, color=_colour(attack), markeredgecolor="white", label=label, **look)
    accuracy.set_title("Accuracy")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    accuracy.set_ylim(0, 1.02)
    _line(rate, rows, "train/lr", "learning rate", GREY)
    rate.set_title("Learning rate")
    rate.set_ylim(bottom=0)
    for axes in (loss, accuracy, rate):
        if best_epoch is not None:
            label = f"best epoch ({best_epoch})"
            axes.axvline(best_epoch, color="#8a8f98", linewidth=0.9, linestyle=":", label=label)
        epochs(axes, max(row["epoch"] for row in rows))
        tidy(axes)
    accuracy.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))  # never upon the lines


def _title(attack: str) -> str:
    return {"robust": "robust (training attack)"}.get(attack, title(attack))


def _colour(attack: str) -> str:
    return _COLOURS.get(attack, ORANGE)


def _line(
    axes: Any, rows: list[dict[str, Any]], key: str, label: str, colour: str, *, dashed: bool = False
) -> None:
    """One metric against the epoch, at the epochs that have it."""
    points = [(row["epoch"], row[key]) for row in rows if row.get(key) is not None]
    if not points:
        return
    places, values = zip(*points, strict=True)
    look: dict[str, Any] = {"marker": "o" if len(points) <= 20 else "", "markersize": 3}
    look |= {"linestyle": "--", "linewidth": 1.3} if dashed else {"linewidth": 1.8}
    axes.plot(places, values, color=colour, label=label, **look)
