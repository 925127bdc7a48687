"""A trained model from its folder or its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from bat_fast import models
from bat_fast.config import Ratio


def load_run(path: str | Path, device: str = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """Build a saved model again.

    Args:
        path: a run folder, or a ``model.safetensors`` that a run wrote.
        device: where to put the model.

    Returns:
        The model in eval mode, taking [N, C, H, W] pixels in [0, 1], and what the file says about it:
        ``arch``, ``num_classes``, ``in_channels``, ``image_size``, ``activation``; ``eps``, ``step_size``
        and ``norm`` of the training; ``method`` and ``data`` (dicts), ``classes`` (names by id), ``seed``,
        ``bat_fast`` (version).

    Raises:
        FileNotFoundError: no such run, or one that has not finished.
        ValueError: the file is corrupt, or bat_fast did not write it.
    """
    file = _model_file(Path(path))
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{file} is not a complete safetensors file ({error})") from error
    if "bat_fast" not in metadata:
        raise ValueError(f"{file} was not written by bat_fast: it does not say how to build its model")
    described: dict[str, Any] = dict(metadata)
    described |= {key: int(metadata[key]) for key in ("num_classes", "in_channels", "image_size", "seed")}
    described |= {key: json.loads(metadata[key]) for key in ("method", "data", "classes") if key in metadata}
    described |= {key: Ratio(metadata[key]) for key in ("eps", "step_size")}
    model = build_model(described)
    model.load_state_dict(tensors)
    return model.to(device).eval(), described


def build_model(described: dict[str, Any], **normalisation: Any) -> nn.Module:
    """A new model from ``arch``, ``num_classes``, ``in_channels``, ``image_size`` and ``activation``.

    ``normalisation`` is ``mean`` and ``std``; without it they come with the weights.
    """
    names = ("num_classes", "in_channels", "image_size", "activation")
    return models.create(described["arch"], **{name: described[name] for name in names}, **normalisation)


def _model_file(path: Path) -> Path:
    if path.is_dir():
        file = path / "model.safetensors"
        if not file.exists() and (path / "config.yaml").exists():
            raise FileNotFoundError(
                f"the run in {path} has not finished: bat-fast train --resume --out {path}"
            )
        path = file
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected a run folder or a model.safetensors")
    return path
