"""``model.safetensors``: the weights of a run with all that builds its model again, written and read here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from bat_fast import __version__, models
from bat_fast._atomic import atomic_write
from bat_fast.attacks import default_step_size
from bat_fast.config import TrainConfig
from bat_fast.ratio import Ratio
from bat_fast.runs.folder import plain

_JSON = ("method", "data", "classes", "options")
_SIZES = ("num_classes", "in_channels", "image_size")


def metadata_of(
    config: TrainConfig, architecture: dict[str, Any], classes: tuple[str, ...]
) -> dict[str, str]:
    """How to build the model of a run again and what it was trained for, as text; `load_run` reads it.

    Args:
        config: of the run.
        architecture: what `build_model` takes.
        classes: names of the classes, by id.
    """
    settings, attack = plain(config), config.attack
    step = attack.step_size if config.eval.step_size is None else config.eval.step_size
    return {
        "bat_fast": __version__,
        **{k: json.dumps(v) if isinstance(v, dict) else str(v) for k, v in architecture.items()},
        "eps": str(attack.eps),
        "step_size": str(default_step_size(attack.eps) if step is None else step),
        "norm": attack.norm,
        "method": json.dumps(settings["method"]),
        "data": json.dumps(settings["data"]),
        "classes": json.dumps(classes),
        "seed": str(config.seed),
    }


def save_model(path: Path, model: nn.Module, metadata: dict[str, str]) -> None:
    """Write the weights and buffers of ``model`` (mean and std included) atomically.

    Args:
        path: of the safetensors file.
        model: what `build_model` makes of the metadata.
        metadata: of `metadata_of`.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    atomic_write(path, lambda file: file.write(_sorted_header(save(tensors, metadata))))


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
    described |= {key: int(metadata[key]) for key in (*_SIZES, "seed")}
    described |= {key: json.loads(metadata[key]) for key in _JSON if key in metadata}
    described |= {key: Ratio(metadata[key]) for key in ("eps", "step_size")}
    model = build_model(described)
    model.load_state_dict(tensors)
    return model.to(device).eval(), described


def build_model(architecture: dict[str, Any], **normalisation: Any) -> nn.Module:
    """A new model.

    Args:
        architecture: ``arch``, ``num_classes``, ``in_channels``, ``image_size`` and ``activation``, and
            ``options`` where there are any; what `load_run` says of a model has them too.
        normalisation: ``mean`` and ``std``; without them they come with the weights.
    """
    options = {name: architecture[name] for name in (*_SIZES, "activation")}
    more = architecture.get("options")
    return models.create(architecture["arch"], **options, **normalisation, options=more)


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


def _sorted_header(content: bytes) -> bytes:
    """safetensors writes the metadata in random order; sorted, the same model is the same bytes."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]
