"""What training saw of its samples, as ``--record_samples`` has kept it: margins, and q of BAT."""

from __future__ import annotations

from typing import Any

import numpy as np

from bat_fast.report.figure import BLUE, CYCLE, ORANGE, epochs, figure, svg_of, tidy

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
Table = dict[str, np.ndarray[Any, Any]]


def recorded(table: Table, letter: str) -> dict[str, Any]:
    """A picture of the samples of a run, with ``title``, ``svg``, ``alt`` and ``note``.

    Args:
        table: ``margin`` and ``q``, [epochs, n]; NaN where an epoch has not met a sample.
        letter: of the run.
    """
    margin, q = table["margin"], table["q"]
    seen = [row[np.isfinite(row)] for row in margin]
    bands = np.array([np.quantile(row, _QUANTILES) if len(row) else [np.nan] * 5 for row in seen])
    below = np.array([float((row <= 0).mean()) if len(row) else np.nan for row in seen])
    at, places = np.arange(1, len(margin) + 1), sorted({0, (len(margin) - 1) // 2, len(margin) - 1})
    with figure(11, 3, page=True) as made:
        left, middle, right = made.subplots(1, 3)
        left.fill_between(at, bands[:, 0], bands[:, 4], color=BLUE, alpha=0.12, linewidth=0)
        left.fill_between(at, bands[:, 1], bands[:, 3], color=BLUE, alpha=0.25, linewidth=0)
        left.plot(at, bands[:, 2], color=BLUE)
        left.set_title("margin: median, 50 and 90 %")
        middle.plot(at, below, color=ORANGE)
        middle.set_ylim(0, 1.02)
        middle.set_title("share with a margin below 0")
        for number, place in enumerate(places):
            some = q[place][np.isfinite(q[place])]
            right.hist(
                some, np.linspace(0, 1, 41), histtype="step", color=CYCLE[number], label=f"{place + 1}"
            )
        right.set_xlabel("q: p(likeliest other class), by epoch")
        right.set_ylabel("samples")
        right.legend(frameon=False)
        for axes in (left, middle):
            epochs(axes, len(margin))
        for axes in (left, middle, right):
            tidy(axes)
        svg = svg_of(made, f"recorded-{letter}")
    alt = (
        f"The {margin.shape[1]} training samples of run {letter} in {len(margin)} epochs: median margin "
        f"{bands[0, 2]:.2f} in the first and {bands[-1, 2]:.2f} in the last; below 0 are {below[0]:.0%} and "
        f"{below[-1]:.0%}."
    )
    note = "Of the images trained on, in train mode. BAT gives a weight below 1 where the margin is below 0."
    return {"title": "Training samples", "svg": svg, "alt": alt, "note": note}
