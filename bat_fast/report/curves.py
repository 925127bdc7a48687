"""The picture of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bat_fast._atomic import atomic_write
from bat_fast.runs.metrics import attacks_on, metric, title

_BLUE, _ORANGE, _GREEN, _GREY = "#3b6fb6", "#d9822b", "#3a9a5b", "#8a8f98"


def draw_curves(rows: list[dict[str, Any]], best_epoch: int, path: Path) -> None:
    """Draw loss, validation accuracies and learning rate against the epoch into a PNG file.

    Args:
        rows: the lines of ``metrics.jsonl``.
        best_epoch: the epoch chosen by validation, marked in every panel.
        path: of the PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    FigureCanvasAgg(figure)  # no display is needed, and no global state is touched
    loss, accuracy, rate = figure.subplots(1, 3)

    _line(loss, rows, "train/loss", "training loss", _BLUE)
    loss.set_title("Loss")
    for attack in attacks_on("val", dict.fromkeys(key for row in rows for key in row)):
        colour = {"clean": _GREEN, "fgsm": _BLUE}.get(
            attack, _ORANGE
        )  # single-step training shows both attacks
        _line(accuracy, rows, metric("val", attack), title(attack), colour)
    accuracy.set_title("Validation accuracy")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    accuracy.set_ylim(0, 1)
    _line(rate, rows, "train/lr", "learning rate", _GREY)
    rate.set_title("Learning rate")
    rate.set_ylim(bottom=0)

    for axes in (loss, accuracy, rate):
        label = f"best epoch ({best_epoch})"
        axes.axvline(best_epoch, color="black", linewidth=0.9, linestyle=":", label=label)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    accuracy.legend(frameon=False, loc="lower right")
    atomic_write(path, lambda file: figure.savefig(file, format="png", dpi=150))


def _line(axes: Any, rows: list[dict[str, Any]], key: str, label: str, colour: str) -> None:
    """One metric against the epoch, at the epochs that have it."""
    points = [(row["epoch"], row[key]) for row in rows if row.get(key) is not None]
    epochs, values = zip(*points, strict=True)
    marker = "o" if len(points) <= 40 else ""
    axes.plot(epochs, values, color=colour, label=label, linewidth=1.8, marker=marker, markersize=3)
