"""The two files that hold weights: a checkpoint to resume from, and a model to give away."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from bat_fast.train.atomic import atomic_write


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, containers of them) atomically to ``path``."""
    atomic_write(path, lambda file: torch.save(state, file))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU. Runs no code from the file (``weights_only``).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, corrupt or not a checkpoint.
    """
    with path.open("rb") as file:
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except (RuntimeError, OSError, EOFError, KeyError, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise ValueError(
                f"{path} is not a complete checkpoint ({reason}); put an intact copy in its place "
                "(checkpoints/best.pt has the same layout), or delete it to start the run over"
            ) from error
    if not isinstance(state, dict) or "epoch" not in state:
        raise ValueError(f"{path} is not a checkpoint of bat_fast")
    return state


def export_model(path: Path, model: nn.Module, metadata: dict[str, str]) -> None:
    """Write the weights and buffers of ``model`` (mean and std included) as safetensors, atomically.

    ``metadata`` describes how to build the model again; `bat_fast.evaluate.load_run` reads it.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    atomic_write(path, lambda file: file.write(_sorted_header(save(tensors, metadata))))


def _sorted_header(content: bytes) -> bytes:
    """safetensors writes the metadata in random order; sorted, the same model is the same bytes."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]
