"""A checkpoint: everything that a training run needs to go on."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from bat_fast._atomic import atomic_write


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
