"""What a finished run says about itself."""

from __future__ import annotations

import json
from typing import Any

from bat_fast import __version__
from bat_fast.config import TrainConfig
from bat_fast.train.provenance import git_revision, versions
from bat_fast.train.run_folder import plain


def results_of(
    config: TrainConfig,
    best: dict[str, Any],
    rows: list[dict[str, Any]],
    test: dict[str, float],
    sizes: dict[str, int],
    device: str,
) -> dict[str, Any]:
    """The content of ``results.json``.

    Args:
        config: of the run.
        best: the row of the epoch chosen on validation.
        rows: those of all epochs.
        test: the metrics of the test split.
        sizes: samples in each split.
        device: where it ran.
    """
    metrics = {name: value for name, value in best.items() if name.startswith(("val/", "train/"))} | test
    for name, pool in (("img_s", _mean), ("attack_ms", _mean), ("peak_mem_mib", max)):
        metrics[f"perf/{name}"] = pool([row[f"perf/{name}"] for row in rows])
    return {
        "metrics": metrics,
        "config": plain(config),
        "versions": versions(device),
        "git": git_revision(),
        "seed": config.seed,
        "epoch": best["epoch"],
        "n_examples": sizes,
    }


def metadata_of(config: TrainConfig, recipe: dict[str, Any], classes: tuple[str, ...]) -> dict[str, str]:
    """How to build the model again and what it was trained for, as text; `load_run` reads it."""
    settings, attack = plain(config), config.attack
    step = attack.step_size if config.eval.step_size is None else config.eval.step_size
    return {
        "bat_fast": __version__,
        **{name: str(value) for name, value in recipe.items()},
        "eps": str(attack.eps),
        "step_size": str(attack.eps / 4 if step is None else step),
        "norm": attack.norm,
        "method": json.dumps(settings["method"]),
        "data": json.dumps(settings["data"]),
        "classes": json.dumps(classes),
        "seed": str(config.seed),
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
