"""Run folders as a finished run leaves them, without training."""

import json

import yaml

from bat_fast.config import TrainConfig
from bat_fast.runs.plain import plain


def write_run(path, *, seed=0, clean=0.9, robust=0.5, epochs=3, name="pgd20", **changes):
    """A folder with settings, metrics and results; ``changes`` are sections of the configuration."""
    config = plain(TrainConfig(seed=seed, epochs=epochs, method=changes.pop("method", {"name": "bat"})))
    for section, values in changes.items():
        config[section] = config[section] | values
    rows = [
        {
            "epoch": epoch, "train/loss": 2.0 / epoch, "train/lr": 0.1, "train/robust_acc": 0.3 * epoch,
            "train/weight_mean": 0.9, "val/clean_acc": clean, "val/pgd10_acc": robust,
            "perf/img_s": 100.0, "perf/attack_ms": 1.0, "perf/peak_mem_mib": 10.0, "perf/epoch_s": 2.0,
        }
        for epoch in range(1, epochs + 1)
    ]  # fmt: skip
    metrics = {"test/clean_acc": clean, f"test/{name}_acc": robust, "perf/train_s": 2.0 * epochs}
    metrics |= {"val/clean_acc": clean, "val/pgd10_acc": robust, "train/loss": 1.0}
    results = {
        "metrics": metrics, "config": config, "seed": seed, "epoch": epochs, "git": "0" * 40,
        "versions": {"bat_fast": "0.1.0", "torch": "2", "python": "3", "cuda": None, "device": "cpu"},
        "n_examples": {"train": 1000, "val": 100, "test": 400},
    }  # fmt: skip
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "results.json").write_text(json.dumps(results))
    (path / "classes.txt").write_text("".join(f"{number}\n" for number in range(10)))
    return path
