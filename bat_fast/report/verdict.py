"""What a report says first: how good the runs are, which is better, and whether that is chance."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bat_fast.report.compare import Group, cell, metric_names
from bat_fast.report.run import Run
from bat_fast.runs.finding import Finding
from bat_fast.runs.metrics import attacks_on, metric, title

_Z = 1.96
_SAME = (
    *("data.name", "attack.norm", "attack.eps"),
    *("eval.test_attack", "eval.test_steps", "eval.step_size"),
)


def verdict(
    runs: Sequence[Run],
    groups: Sequence[Group],
    checks: dict[str, list[Finding]],
    differ: dict[str, list[object]],
) -> list[str]:
    """Sentences, the most important one first.

    Args:
        runs: in their order.
        groups: the finished ones, those together that differ by the seed alone.
        checks: by the letter of the run.
        differ: setting -> its value in each run.
    """
    finished = [run for run in runs if run.robust_acc is not None]
    lines = []
    if len(finished) == 1 or len(runs) == 1:
        lines += [_alone(run) for run in finished]
    elif finished and any(len(group.paths) > 1 for group in groups):
        lines += _over_seeds(finished, groups)
    elif finished:
        lines.append(_best(finished, differ))
    for run in runs:
        if run.results is None:
            lines.append(f"{run.letter} has not finished: {len(run.rows)} of {run.config['epochs']} epochs.")
        failed = [check.name.lower() for check in checks[run.letter] if check.raised]
        if failed:
            which = ", ".join(failed)
            lines.append(f"Do not rely on the robust accuracy of {run.letter}. Failed checks: {which}.")
        elif checks[run.letter] and len(runs) == 1:
            lines.append(f"All {len(checks[run.letter])} checks of the attack pass.")
        fall = run.overfitting()
        if fall is not None and fall > 0.03:
            points = f"{100 * fall:.1f} points from its best epoch to the last"
            lines.append(f"{run.letter} overfits robustly: {run.measured} accuracy fell by {points}.")
    return lines


def images_of(run: Run) -> int | None:
    """How many images the test of the run had, as far as it says so."""
    sizes = (run.results or {}).get("n_examples", {})
    return sizes.get("test") if isinstance(sizes, dict) else None


def _alone(run: Run) -> str:
    attack, robust, n = run.config["attack"], run.robust_acc or 0.0, images_of(run)
    of = f" of {n} test images" if n else " of the test images"
    clean = run.metrics.get(metric("test", "clean"), 0.0)
    return (
        f"{robust:.1%}{of} stay right under {title(run.robust or '')} with {attack['norm']} radius "
        f"{attack['eps']}, {clean:.1%} without an attack."
    )


def _over_seeds(runs: Sequence[Run], groups: Sequence[Group]) -> list[str]:
    """A sentence on the mean of each group, with its interval."""
    letters = {run.path: run.letter for run in runs}
    lines = []
    for group in groups:
        which = ", ".join(letters[path] for path in group.paths if path in letters)
        for name in metric_names([group]):
            if name.startswith("test/") and name != metric("test", "clean") and (mean := group.mean(name)):
                attack = title(attacks_on("test", [name])[0])
                text = cell(name, mean).replace(" ± ", " % ± ")
                lines.append(f"{which}: {text} % under {attack}, over {mean.n} seed{'s' * (mean.n > 1)}.")
    return lines


def _best(runs: Sequence[Run], differ: dict[str, list[object]]) -> str:
    """Which of several runs is the most robust, and whether the next one is within chance."""
    first, second = sorted(runs, key=lambda run: -(run.robust_acc or 0.0))[:2]
    high, low = first.robust_acc or 0.0, second.robust_acc or 0.0
    unlike = [name for name in _SAME if name in differ]
    if unlike or first.robust != second.robust:
        which = ", ".join(unlike) or "the attack of the test"
        return f"The robust accuracies do not compare: the runs were tested differently ({which})."
    head = f"{first.letter} is the most robust: {high:.1%}, then {second.letter} with {low:.1%}."
    counts = images_of(first), images_of(second)
    if counts[0] and counts[1]:
        spread = math.sqrt(high * (1 - high) / counts[0] + low * (1 - low) / counts[1])
        if high - low <= _Z * spread:
            return f"{head} Between these two {min(counts[0], counts[1])} images cannot decide."
    return head
