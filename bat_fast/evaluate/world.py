"""The processes of ``torchrun`` that judge one model together, each its share of the images."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import NamedTuple, TypeVar

import torch
from torch import distributed as dist

T = TypeVar("T")

_PATIENCE = timedelta(days=30)  # a share of the images may take much longer than another


class World(NamedTuple):
    """Which of how many processes this one is."""

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> World:
        """As ``torchrun`` says in the environment; this process alone without it."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size < 2:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group("gloo", timeout=_PATIENCE)  # what is sent lies in main memory
        return cls(dist.get_rank(), size)

    def device(self, name: str) -> str:
        """``name``, but for ``auto`` and ``cuda`` the GPU that is this process's own."""
        if self.size < 2 or name not in ("auto", "cuda") or not torch.cuda.is_available():
            return name
        return f"cuda:{int(os.environ.get('LOCAL_RANK', self.rank)) % torch.cuda.device_count()}"

    def gathered(self, value: T) -> list[T]:
        """``value`` of every process, in their order."""
        if self.size < 2:
            return [value]
        found: list[T] = [value] * self.size
        dist.all_gather_object(found, value)
        return found
