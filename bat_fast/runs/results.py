"""What a finished run says about itself."""

from __future__ import annotations

from typing import Any

from bat_fast.config import TrainConfig
from bat_fast.runs.folder import plain
from bat_fast.runs.provenance import git_revision, versions


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
    metrics["perf/train_s"] = sum(row.get("perf/epoch_s", 0.0) for row in rows)  # older runs have none
    return {
        "metrics": metrics,
        "config": plain(config),
        "versions": versions(device),
        "git": git_revision(),
        "seed": config.seed,
        "epoch": best["epoch"],
        "n_examples": sizes,
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
