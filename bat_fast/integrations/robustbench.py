"""A trained run in RobustBench, from its own file of weights: ``pip install robustbench``."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from bat_fast.integrations.attacker import host
from bat_fast.runs.model_file import load_run


def register(
    run: str | Path, name: str, dataset: str = "cifar10", threat_model: str = "Linf"
) -> dict[str, str]:
    """Make the model of a run known to ``robustbench.load_model(**register(run, name))``.

    ``bat-fast export RUN --to robustbench`` writes what others need for the same, without the run.

    Args:
        run: folder of a finished run, or its ``model.safetensors``.
        name: of the model, such as ``Author2026Title``.
        dataset, threat_model: as in the host.

    Raises:
        FileNotFoundError: no such run, or one that has not finished. ValueError: its file is corrupt, or
            ``name`` is none for a model.
    """
    register_model = host("timm.models").register_model
    load_run(run)  # what is wrong with it is said now, not when the model is asked for
    file = Path(run) / "model.safetensors" if Path(run).is_dir() else Path(run)

    def entry(**_: Any) -> nn.Module:
        """The model; what ``timm.create_model`` asks beside it is known from the run."""
        return load_run(file)[0]

    full = f"{name}_{dataset}_{threat_model}".lower().replace("-", "_")
    if re.fullmatch(r"\w+", full) is None:
        raise ValueError(f"name must be letters, digits and underscores, got {name!r}")
    entry.__name__ = entry.__qualname__ = full
    entry.__module__ = __name__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a run that is registered again, the last one counts
        register_model(entry)
    return {
        "model_name": name, "dataset": dataset, "threat_model": threat_model, "custom_checkpoint": str(file),
    }  # fmt: skip
