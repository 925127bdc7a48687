"""The state of torch's random generators."""

from __future__ import annotations

from typing import Any

import torch

from bat_fast._random import seed_of


def seed_epoch(seed: int, epoch: int) -> None:
    """Seed the generators for one epoch, so that dropout and the like repeat when it is trained again."""
    torch.manual_seed(seed_of("train", seed, epoch))


def rng_state() -> dict[str, Any]:
    """The state of the generators, on the CPU and on every GPU in use."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_rng_state(state: dict[str, Any]) -> None:
    """Put the generators back to what `rng_state` returned, as far as this machine has them."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
