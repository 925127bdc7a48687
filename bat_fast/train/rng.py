"""The state of torch's random generators."""

from __future__ import annotations

import hashlib
from typing import Any

import torch


def seed_epoch(seed: int, epoch: int) -> None:
    """Seed the generators for one epoch, so that dropout and the like repeat themselves when it is replayed.

    torch's CPU generator reads 32 bits of its seed: a hash lets both numbers reach them.
    """
    key = hashlib.sha256(f"train/{seed}/{epoch}".encode()).digest()
    torch.manual_seed(int.from_bytes(key[:4], "big"))


def rng_state() -> dict[str, Any]:
    """The state of the generators, on the CPU and on every GPU in use."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_rng_state(state: dict[str, Any]) -> None:
    """Put the generators back to what `rng_state` returned, as far as this machine has them."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
