"""What a finished run says about itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bat_fast.config import TrainConfig
from bat_fast.runs.folder import RunFolder
from bat_fast.runs.plain import flat, plain
from bat_fast.runs.provenance import git_revision, versions

_CHOSEN = {
    "val": "best on the validation split",
    "last": "last epoch, trained without a validation split",
    "test": "best on the test split, trained without a validation split",
}


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
    chosen = {name: value for name, value in best.items() if name.startswith(("val/", "train/"))}
    if config.eval.choose != "val":  # rows call val/ what is measured in every epoch, here the test split
        chosen = {name.replace("val/", "test/"): value for name, value in chosen.items()}
    metrics = chosen | test
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
        "chosen": _CHOSEN[config.eval.choose],
        "n_examples": sizes,
    }


def read_results(path: Path) -> dict[str, Any]:
    """The ``results.json`` of a run folder.

    Raises:
        FileNotFoundError: no such run, or one that has not finished.
        ValueError: the file is no results of a run.
    """
    folder = RunFolder(path)
    if not folder.results.exists():
        if folder.config.exists():
            raise FileNotFoundError(
                f"the run in {path} has not finished: bat-fast train --resume --out {path}"
            )
        raise FileNotFoundError(f"{path} is no run folder: there is no results.json in it")
    try:
        results = json.loads(folder.results.read_text())
    except ValueError as error:
        raise ValueError(f"{folder.results} is no JSON ({error}): train that run again") from error
    parts = ("metrics", "config", "versions")
    if not isinstance(results, dict) or not all(isinstance(results.get(part), dict) for part in parts):
        raise ValueError(f"{folder.results} was not written by bat_fast: it lacks {', '.join(parts)}")
    return results


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a stored configuration by their names, such as ``attack.eps``.

    What an older run did not know has the value that is now its default.
    """
    return flat(plain(TrainConfig())) | flat(config)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
