"""Weights from files, whoever wrote them, and how they are put into a model."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bat_fast.runs.checkpoint import check_parts
from bat_fast.runs.sealed_tensors import check_tensors

# Where a checkpoint keeps the weights, and what wrappers put before their names.
_INSIDE = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "weights",
    "params",
    "state_dict_ema",
    "model_ema",
)
_DEEPEST = 16  # mappings in each other
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a run folder, a safetensors file or a checkpoint of torch, on the CPU.

    Nothing of the file is run: a checkpoint that holds more than tensors and plain containers is refused.

    Raises:
        FileNotFoundError: there is no such file, or the run has not finished.
        ValueError: the file is damaged, or holds no weights.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "model.safetensors"
    if not file.is_file():
        raise FileNotFoundError(f"{path} holds no weights: expected a run folder, .safetensors or .pt")
    with file.open("rb") as opened:
        start = opened.read(9)
    if start[8:] == b"{":
        check_tensors(file)
    try:
        found = load_file(file) if start[8:] == b"{" else _checkpoint(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is not a complete safetensors file ({error})") from error
    weights = _weights_of(found)
    if not weights:
        raise ValueError(f"{file} holds no weights: expected tensors by name, as of model.state_dict()")
    return weights


def _checkpoint(file: Path) -> Any:
    try:
        with file.open("rb") as opened:
            if zipfile.is_zipfile(opened):
                check_parts(opened)
            opened.seek(0)
            return torch.load(opened, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{file} holds more than weights, or is damaged, and is not read because that would run code: "
            "save model.state_dict() alone, where the file is from"
        ) from error
    except Exception as error:  # of many kinds: a changed bit may lead a reader anywhere
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{file} is no file of weights, or damaged ({reason})") from error


def _weights_of(found: Any) -> dict[str, Tensor]:
    average = found.get("average") if isinstance(found, Mapping) and "rng" in found else None
    if average and int(average.get("n_averaged", 0)):  # of a run: what it validates and saves
        found = average
    for _ in range(_DEEPEST):  # a mapping may contain itself
        if not isinstance(found, Mapping):
            break
        inside = next((found[key] for key in _INSIDE if isinstance(found.get(key), Mapping)), None)
        if inside is None:
            tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
            return {name: value for name, value in tensors.items() if name != "n_averaged"}
        found = inside
    return {}


def put_weights(
    model: nn.Module, weights: Mapping[str, Tensor], source: str | Path, *, new_head: bool = False
) -> list[str]:
    """Copy ``weights`` into ``model``; names may have prefixes, or be those of a module that is wrapped.

    A normalisation that the weights do not have stays as it is.

    Args:
        model: changed in place.
        weights: by name.
        source: where they are from, for messages.
        new_head: the last linear layer may be missing, or of another size, and is left as it is then.

    Returns:
        The names that were left as they are.

    Raises:
        ValueError: they do not fit; the message names what is missing, unexpected or of another size.
    """
    own = model.state_dict()
    found = max(_spellings(model, weights), key=lambda named: sum(name in own for name in named))
    head = _head(model) if new_head else ()
    fits = {name: value for name, value in found.items() if name in own and value.shape == own[name].shape}
    left = [name for name in own if name not in fits and not name.startswith("normalize.")]
    left = [name for name in left if name in found or not name.endswith("num_batches_tracked")]
    wrong = [name for name in left if name not in head]
    faults = {
        "missing": [name for name in wrong if name not in found],
        "of another size": [
            f"{name} {list(found[name].shape)} instead of {list(own[name].shape)}"
            for name in wrong
            if name in found
        ],
        "unexpected": [name for name in found if name not in own],
    }
    if any(faults.values()):
        said = "; ".join(f"{what}: {_some(names)}" for what, names in faults.items() if names)
        raise ValueError(f"the weights of {source} do not fit the model; {said}")
    model.load_state_dict(fits, strict=False)
    return left


def _spellings(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """``weights`` under all the names that they may be meant by."""
    renamed = getattr(model, "renamed", None)
    while True:
        yield dict(weights)
        if renamed is not None:
            yield {renamed(name): value for name, value in weights.items()}
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in weights)), None)
        if prefix is None:
            return
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}


def _head(model: nn.Module) -> Iterable[str]:
    linear = [path for path, part in model.named_modules() if isinstance(part, nn.Linear)]
    return (f"{linear[-1]}.weight", f"{linear[-1]}.bias") if linear else ()


def _some(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
