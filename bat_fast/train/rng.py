"""The state of torch's random generators."""

from __future__ import annotations

from typing import Any

import torch

from bat_fast._random import seed_of
from bat_fast.world.ranks import ALONE, World


def seed_epoch(seed: int, epoch: int, rank: int = 0) -> None:
    """Seed the generators for one epoch, so that dropout and the like repeat when it is trained again.

    Every process has other numbers, as it has other images.
    """
    torch.manual_seed(seed_of("train", seed, epoch, *[rank] * (rank > 0)))


def rng_state(world: World = ALONE) -> dict[str, Any]:
    """The state of the generators, on the CPU and on every GPU in use; those of other processes beside it."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    first, *others = world.objects({"cpu": torch.get_rng_state(), "cuda": cuda})
    return first | ({"others": others} if others else {})


def restore_rng_state(state: dict[str, Any], world: World = ALONE) -> None:
    """Put the generators back to what `rng_state` returned, as far as this machine has them.

    Where there were less processes before, those that are new begin with numbers of their own.
    """
    if world.rank:
        others = state.get("others", [])
        if world.rank > len(others):
            torch.manual_seed(seed_of("resumed", state["cpu"].numpy().tobytes().hex(), world.rank))
            return
        state = others[world.rank - 1]
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
