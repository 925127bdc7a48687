"""The pictures of a report that show several runs, and those of what was examined, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bat_fast.report.curves import plot_curves
from bat_fast.report.figure import BLUE, CYCLE, ORANGE, epochs, figure, svg_of, tidy
from bat_fast.report.findings import margins, share
from bat_fast.report.intervals import wilson
from bat_fast.report.run import Run
from bat_fast.runs.calibration import reliability
from bat_fast.runs.examined import Examined
from bat_fast.runs.examined import right as is_right

_MARKERS = "os^Dv<>"
_OF_EVERY_METHOD = ("train/loss", "train/lr", "train/robust_acc", "train/clean_acc")


def curves(run: Run) -> str:
    """Loss, accuracies and learning rate by epoch."""
    with figure(11, 3.3, page=True) as made:
        plot_curves(made, run.rows, run.best, run.metrics, run.measured)
        return svg_of(made, f"curves-{run.letter}")


def overlay(runs: Sequence[Run]) -> str | None:
    """Robust accuracy by epoch of all runs: on what each measures, and dashed under the training attack."""
    shown = [(run, run.val_robust) for run in runs]
    if not any(name for _, name in shown):
        return None
    with figure(8, 3.4, page=True) as made:
        axes = made.subplots()
        for number, (run, name) in enumerate(shown):
            marker = "o" if len(run.rows) <= 20 else ""
            look = {"color": CYCLE[number % len(CYCLE)], "marker": marker, "markersize": 3}
            if name:
                axes.plot(*_columns(run.series(name)), label=f"{run.letter} {run.measured}", **look)
            if points := run.series("train/robust_acc"):
                axes.plot(*_columns(points), linestyle="--", linewidth=1, label=f"{run.letter} train", **look)
        _accuracy(axes, "epoch")
        epochs(axes, _last(runs))
        return svg_of(made, "overlay")


def security(runs: Sequence[Run]) -> str | None:
    """Accuracy against the radius of the attack, with 95 % intervals."""

    def near(found: Examined) -> dict[float, Any]:  # the ball that breaks everything would press the rest
        return {radius: mask for radius, mask in found.radii.items() if radius <= 4 * found.eps}

    return _against(runs, "radius of the attack", "security", near, crossed=True)


def by_steps(runs: Sequence[Run]) -> str | None:
    """Accuracy against the number of steps of the attack."""
    return _against(runs, "steps of the attack", "steps", lambda found: found.steps, log=True)


def own_metrics(runs: Sequence[Run]) -> str | None:
    """What the methods record of their own by epoch, such as the mean weight of BAT; a panel each."""
    names = dict.fromkeys(key for run in runs for row in run.rows for key in row if key.startswith("train/"))
    mine = [name for name in names if name not in _OF_EVERY_METHOD][:8]
    if not mine:
        return None
    columns = min(4, len(mine))
    lines = -(-len(mine) // columns)
    with figure(2.8 * columns + 0.8, 2.4 * lines, page=True) as made:
        grid = made.subplots(lines, columns, squeeze=False).flatten().tolist()
        for name, axes in zip(mine, grid, strict=False):
            for number, run in enumerate(runs):
                if points := run.series(name):
                    marker = "o" if len(points) <= 20 else ""
                    look = {"color": CYCLE[number % len(CYCLE)], "marker": marker, "markersize": 3}
                    axes.plot(*_columns(points), label=run.letter, **look)
            axes.set_title(name.removeprefix("train/"))
            epochs(axes, _last(runs))
            tidy(axes)
            if len(runs) > 1:
                axes.legend(frameon=False, fontsize=8)
        for axes in grid[len(mine) :]:
            axes.set_visible(False)
        return svg_of(made, "metrics")


def confidence(found: Examined, letter: str) -> str:
    """Margins of the true class, and accuracy against confidence; clean and attacked."""
    kinds = (("clean", found.clean, BLUE), ("attacked", found.attacked, ORANGE))
    with figure(10, 3, page=True) as made:
        left, right = made.subplots(1, 2)
        bins = [number / 20 - 1 for number in range(41)]
        for name, logits, colour in kinds:
            values = margins(logits, found.labels).nan_to_num(-1.0).tolist()
            left.hist(values, bins, color=colour, alpha=0.45, label=name)
            left.hist(values, bins, color=colour, histtype="step", linewidth=1.2)
            rows, error = reliability(logits.softmax(1).amax(1), is_right(logits, found.labels))
            label, shown = f"{name} (ECE {error:.1%})", [row[:2] for row in rows]
            right.plot(*_columns(shown), color=colour, marker="o", markersize=4, label=label)
        left.axvline(0, color="#8a8f98", linewidth=0.9, linestyle=":")
        left.set_xlabel("margin: p(true) - p(likeliest other)")
        left.set_ylabel("images")
        left.set_xticks([-1, -0.5, 0, 0.5, 1])
        right.plot([0, 1], [0, 1], color="#8a8f98", linewidth=0.9, linestyle=":")
        right.set_xlabel("confidence")
        right.set_ylabel("accuracy")
        for axes in (left, right):
            tidy(axes)
        left.legend(frameon=False, loc="upper left")
        right.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return svg_of(made, f"confidence-{letter}")


def _against(
    runs: Sequence[Run], label: str, name: str, what: Any, *, crossed: bool = False, log: bool = False
) -> str | None:
    shown = [(number, run, run.examined) for number, run in enumerate(runs) if run.examined is not None]
    if not shown:
        return None
    with figure(8, 3.4, page=True) as made:
        axes = made.subplots()
        for number, run, found in shown:
            points = [(at, share(mask)) for at, mask in what(found).items()]
            colour, marker = CYCLE[number % len(CYCLE)], _MARKERS[number % len(_MARKERS)]
            xs, ys = _columns(points)
            low, high = _columns([wilson(value, len(found.labels)) for value in ys])
            axes.fill_between(xs, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(xs, ys, color=colour, marker=marker, markersize=5, label=f"{run.letter}")
            if crossed:
                axes.axvline(found.eps, color=colour, linewidth=0.9, linestyle=":")
        if log:
            axes.set_xscale("log")
            ticks = sorted({count for _, _, found in shown for count in what(found)})
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.minorticks_off()
        _accuracy(axes, label)
        return svg_of(made, name)


def _accuracy(axes: Any, label: str) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel(label)
    axes.set_ylabel("accuracy")
    tidy(axes)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _last(runs: Sequence[Run]) -> int:
    return max((row["epoch"] for run in runs for row in run.rows), default=1)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]
