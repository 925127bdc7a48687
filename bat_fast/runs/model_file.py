"""``model.safetensors``: the weights of a run with all that builds its model again, written and read here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from bat_fast import __version__, models
from bat_fast._atomic import atomic_write
from bat_fast.attacks import default_step_size
from bat_fast.config import TrainConfig
from bat_fast.ratio import Ratio
from bat_fast.runs.plain import plain
from bat_fast.runs.sealed_tensors import KEY, check_tensors, sealed_tensors
from bat_fast.runs.weights import put_weights

GIVEN = "given:"  # in place of a name: a model from Python, and what its class is called
_JSON = ("method", "data", "classes", "options")
_SMALL = 64  # a size that any model may have
_LARGEST = 1 << 14  # pixels of a side
_ALONE = (
    "; give a run folder, or the model.safetensors of one: weights alone do not say how to build their model "
    "(bat-fast eval takes them, with --model and --data)"
)
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


def _check_sizes(described: dict[str, Any], tensors: dict[str, Tensor], file: Path) -> None:
    """Raise ValueError where a model would be larger than what the file holds: it is built before the weights
    are compared with it, and a number in a header costs nothing."""
    most = max([_SMALL, len(tensors), *(size for tensor in tensors.values() for size in tensor.shape)])
    asked = {name: described[name] for name in ("num_classes", "in_channels")} | described.get("options", {})
    for name, value in asked.items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, (int, float)) and not abs(number) <= most:
                raise ValueError(f"{file}: {name} is {number}, but no tensor in it is larger than {most}")
    if not 1 <= described["image_size"] <= _LARGEST:
        raise ValueError(f"{file}: image_size is {described['image_size']}, outside [1, {_LARGEST}]")


def save_model(path: Path, model: nn.Module, metadata: dict[str, str]) -> None:
    """Write the weights and buffers of ``model`` (mean and std included) atomically.

    Args:
        path: of the safetensors file.
        model: what `build_model` makes of the metadata.
        metadata: of `metadata_of`.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    atomic_write(path, lambda file: file.write(sealed_tensors(save(tensors, metadata))))


def load_run(
    path: str | Path, device: str = "cpu", *, model: nn.Module | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """Build a saved model again.

    A model of a class of one's own is made by that class: its module or file is imported, and so run.

    Args:
        path: a run folder, or a ``model.safetensors`` that a run wrote.
        device: where to put the model.
        model: what ``Trainer(model=)`` was given, with any weights; those of the run are put into it.

    Returns:
        The model in eval mode, taking [N, C, H, W] pixels in [0, 1], and what the file says about it:
        ``arch``, ``num_classes``, ``in_channels``, ``image_size``, ``activation``; ``eps``, ``step_size``
        and ``norm`` of the training; ``method`` and ``data`` (dicts), ``classes`` (names by id), ``seed``,
        ``bat_fast`` (version).

    Raises:
        FileNotFoundError: no such run, or one that has not finished.
        ValueError: the file is corrupt, bat_fast did not write it, or its model was given in Python and
            is not here.
    """
    file = _model_file(Path(path))
    check_tensors(file)
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{file} is not a complete safetensors file ({error}){_ALONE}") from error
    if "bat_fast" not in metadata:
        raise ValueError(f"{file} was not written by bat_fast{_ALONE}")
    described: dict[str, Any] = {key: value for key, value in metadata.items() if key != KEY}
    described |= {key: int(metadata[key]) for key in (*_SIZES, "seed")}
    described |= {key: json.loads(metadata[key]) for key in _JSON if key in metadata}
    described |= {key: Ratio(metadata[key]) for key in ("eps", "step_size")}
    _check_sizes(described, tensors, file)
    built = build_model(described, given=model)
    put_weights(built, tensors, file)
    return built.to(device).eval(), described


def build_model(
    architecture: dict[str, Any],
    *,
    given: nn.Module | None = None,
    pretrained: bool = False,
    **normalisation: Any,
) -> nn.Module:
    """A new model, or the one that is given.

    Args:
        architecture: ``arch``, ``num_classes``, ``in_channels``, ``image_size`` and ``activation``, and
            ``options`` where there are any; what `load_run` says of a model has them too.
        given: a model from Python, which takes pixels in [0, 1].
        pretrained: begin with published weights.
        normalisation: ``mean`` and ``std``; without them they come with the weights.

    Raises:
        ValueError: the architecture is one that was given in Python, and it is not given now.
    """
    options = {name: architecture[name] for name in (*_SIZES, "activation")}
    arch, more = architecture["arch"], architecture.get("options")
    if given is not None:
        return models.wrap(given, models.Spec(**options))
    if arch.startswith(GIVEN):
        raise ValueError(
            f"this run trained a model that was given in Python, {arch.removeprefix(GIVEN)}: make such a "
            "model and call load_run(path, model=...), or evaluate(...) with it"
        )
    return models.create(arch, **options, **normalisation, options=more, pretrained=pretrained)


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
