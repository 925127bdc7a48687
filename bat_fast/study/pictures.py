"""The pictures of a study's page, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bat_fast.report.figure import BLUE, CYCLE, GREY, ORANGE, epochs, figure, svg_of, tidy
from bat_fast.report.intervals import wilson
from bat_fast.study.ablation import CONDITIONS, Effect
from bat_fast.study.groups import Groups
from bat_fast.study.scores import ATYPICAL
from bat_fast.study.sealed_arrays import Array

_GROUPS = (("typical", BLUE), ("atypical", ORANGE))
_BINS = 8


def histogram(values: Mapping[str, Array]) -> str:
    """How many samples are memorised how much, clean and robust; the counts are logarithmic."""
    with figure(7, 3, page=True) as made:
        axes = made.subplots()
        bins = np.linspace(-0.5, 1.0, 31)
        for number, (kind, mem) in enumerate(values.items()):
            axes.hist(
                mem[~np.isnan(mem)].clip(-0.5, 1), bins, histtype="step", color=CYCLE[number], label=kind
            )
        axes.axvline(ATYPICAL, color=GREY, linewidth=0.9, linestyle=":")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")  # not as a formula
        axes.minorticks_off()
        axes.set_xlabel("memorisation")
        axes.set_ylabel("training samples")
        tidy(axes)
        axes.legend(frameon=False)
        return svg_of(made, "histogram")


def by_epoch(judged: Mapping[int, dict[str, Array]], groups: Groups, name: str) -> str:
    """Accuracy of typical and atypical samples by epoch: training above, test below; clean and attacked."""
    with figure(9, 5.2, page=True) as made:
        grid = made.subplots(2, 2, sharex=True, sharey=True)
        for row, split in enumerate(("train", "test")):
            atypical = groups.train if split == "train" else groups.test
            for column, kind in enumerate(("clean", "robust")):
                axes = grid[row][column]
                for group, colour in _GROUPS:
                    mask = atypical if group == "atypical" else ~atypical
                    if mask.any():
                        _band(axes, judged, f"{split}_{kind}", mask, colour, f"{group} ({mask.sum()})")
                axes.set_title(f"{split}, {kind}")
                tidy(axes)
        epochs(grid[1][0], max(judged))
        epochs(grid[1][1], max(judged))
        for row in (0, 1):
            grid[row][0].set_ylabel("accuracy")
            grid[row][1].legend(frameon=False, loc="best")
        grid[0][0].set_ylim(0, 1.02)
        return svg_of(made, f"epochs-{name}")


def _band(axes: Any, judged: Any, key: str, mask: Array, colour: str, label: str) -> None:
    at = list(judged)
    share = [float(judged[epoch][key][mask].mean()) for epoch in at]
    low, high = zip(*(wilson(value, int(mask.sum())) for value in share), strict=True)
    axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(at, share, color=colour, label=label, linewidth=1.4)


def trust(margin: Array, q: Array, mem: Array, atypical: Array, name: str) -> str:
    """Whom BAT weighs down, and when; and the mean q of a sample against its memorisation."""
    with figure(9, 3, page=True) as made:
        left, right = made.subplots(1, 2)
        at = np.arange(1, len(margin) + 1)
        for group, colour in _GROUPS:
            mask = atypical if group == "atypical" else ~atypical
            if mask.any():
                left.plot(at, (margin[:, mask] <= 0).mean(1), color=colour, label=group)
        left.set_ylabel("share with a weight below 1")
        left.set_ylim(0, 1.02)
        epochs(left, len(margin))
        left.legend(frameon=False)
        order = np.argsort(np.nan_to_num(mem), kind="stable")
        mean = np.nanmean(q, 0)
        xs, ys, errors = [], [], []
        for part in np.array_split(order, _BINS):
            xs.append(float(np.nanmean(mem[part])))
            ys.append(float(np.nanmean(mean[part])))
            errors.append(1.96 * float(np.nanstd(mean[part])) / max(1, len(part)) ** 0.5)
        right.errorbar(xs, ys, errors, color=BLUE, marker="o", markersize=4, linewidth=1)
        right.set_xlabel(f"memorisation, {_BINS} parts of equal size")
        right.set_ylabel("mean q over the epochs")
        for axes in (left, right):
            tidy(axes)
        return svg_of(made, f"trust-{name}")


def findings(effects: Sequence[Effect]) -> str:
    """Accuracy on both groups of test images without some training samples, with 95 % t-intervals."""
    with figure(9, 3.2, page=True) as made:
        panels = made.subplots(1, 2)
        for axes, kind in zip(panels, ("clean", "robust"), strict=True):
            for number, (group, colour) in enumerate(_GROUPS):
                some = [one for one in effects if one.kind == kind and one.group == group]
                xs = [CONDITIONS.index(one.condition) + 0.16 * (number - 0.5) for one in some]
                ys = [one.mean.value for one in some]
                errors = [one.mean.half_width or 0.0 for one in some]
                axes.errorbar(
                    xs,
                    ys,
                    errors,
                    color=colour,
                    marker="o",
                    linestyle="",
                    markersize=5,
                    label=f"{group} test",
                )
            axes.set_xticks(range(len(CONDITIONS)), ["nothing", *CONDITIONS[1:]])
            axes.set_xlabel("left out of training")
            axes.set_title(kind)
            tidy(axes)
        panels[0].set_ylabel("accuracy")
        panels[1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return svg_of(made, "findings")
