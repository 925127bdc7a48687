"""What a memorisation study found, in lines for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bat_fast.report.intervals import Mean
from bat_fast.study.ablation import Effect
from bat_fast.study.estimate import models_needed, worst_error
from bat_fast.study.folder import Plan
from bat_fast.study.groups import Groups
from bat_fast.study.scores import ATYPICAL
from bat_fast.study.sealed_arrays import Array

THRESHOLDS = (0.10, ATYPICAL, 0.25)


def summary(plan: Plan, found: dict[str, Array]) -> list[str]:
    """Lines on the values that `bat_fast.study.scores.write_scores` has estimated."""
    k = int(found["k"])
    lines = [
        f"{k} models on {plan.ratio:.0%} of {len(found['tr_mem'])} samples; a standard error is at most "
        f"{worst_error(k, plan.ratio):.3f}"
    ]
    lines.append("above              " + "".join(f"{threshold:>8.2f}" for threshold in THRESHOLDS))
    for kind, prefix in (("clean", ""), ("robust", "robust_")):
        if f"tr_{prefix}mem" not in found:
            continue
        mem, error = found[f"tr_{prefix}mem"], found[f"tr_{prefix}mem_se"]
        counts = "".join(f"{int((mem > threshold).sum()):>8}" for threshold in THRESHOLDS)
        sure = int((mem - 2 * error > ATYPICAL).sum())
        lines.append(
            f"{kind:<7}memorised   {counts}   mean {np.nanmean(mem):+.3f}, mean error "
            f"{np.nanmean(error):.3f}, {sure} above {ATYPICAL} by 2 errors, "
            f"{len(found[f'{prefix}pairs_train'])} strong pairs"
        )
    needed = "".join(f"{models_needed(threshold, plan.ratio):>8}" for threshold in THRESHOLDS)
    lines.append(f"models for 2.7 errors{needed[2:]}")
    return lines


def most_memorised(found: dict[str, Array], prefix: str = "", count: int = 5) -> list[str]:
    """The samples with the highest memorisation, each in a line."""
    mem = np.nan_to_num(found[f"tr_{prefix}mem"], nan=-1.0)
    return [
        f"sample {found['tr_index'][i]} of class {found['tr_labels'][i]}: {mem[i]:.2f} +- "
        f"{found[f'tr_{prefix}mem_se'][i]:.2f} (right in {found[f'tr_{prefix}seen'][i]:.0%} with it, "
        f"{found[f'tr_{prefix}unseen'][i]:.0%} without)"
        for i in np.argsort(-mem, kind="stable")[:count]
    ]


def effect_lines(effects: Sequence[Effect], groups: Groups) -> list[str]:
    """Accuracies of an ablation, each with the half width of its interval."""
    lines = [
        f"{groups.train.sum()} of {len(groups.train)} training and {groups.test.sum()} of {len(groups.test)} "
        f"test samples are atypical ({groups.kind} memorisation); +- is the 95 % t-interval over seeds",
        f"{'without':<10}{'test images':<13}{'':<8}{'accuracy':<18}than without as many others",
    ]
    for one in effects:
        against = "" if one.against is None else points(one.against, signed=True)
        lines.append(
            f"{one.condition:<10}{one.group:<13}{one.kind:<8}{points(one.mean):<18}{against}".rstrip()
        )
    return lines


def points(mean: Mean, *, signed: bool = False) -> str:
    """A share in percent, with the half width of its interval."""
    width = "" if mean.half_width is None else f" +- {100 * mean.half_width:.1f}"
    return f"{100 * mean.value:{'+' if signed else ''}.1f}{width}"
