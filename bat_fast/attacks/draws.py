"""Random numbers of an attack that runs several times on ever fewer images of a batch."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from bat_fast import ops
from bat_fast._random import replayed, seed_of

_BELOW_ONE = 1.0 - 2.0**-24
_FAR = 1e6  # no normal number of float32 is cut there


class Draws(Protocol):
    """Where random numbers come from."""

    state: Tensor
    """What has changed since the first of them, to go on with."""

    def uniform(self, rows: Tensor, count: int, shared: int, own: int, use: str) -> Tensor:
        """Numbers in [0, 1).

        Args:
            rows: [n] int64 places in the batch.
            count: how many times.
            shared: numbers that all rows may have in common.
            own: numbers that each row has for itself.
            use: what for; the numbers of two uses have nothing to do with each other.

        Returns:
            [n, count, shared + own] float32.
        """

    def normal(self, rows: Tensor, count: int, use: str) -> Tensor:
        """Standard normal numbers [n, count] float32; arguments as in `uniform`."""


class Keyed:
    """Numbers that depend on (seed, sample, draw, use) alone, so neither on the batch nor on who left it.

    Args:
        seed: of the attack.
        index: [N] int64 data set ids of the batch.
        draw: which numbers of these samples.
    """

    def __init__(self, seed: int, index: Tensor, draw: int) -> None:
        self._seed, self._index, self._draw = seed, index, draw
        self.state = torch.empty(0)  # nothing changes

    def uniform(self, rows: Tensor, count: int, shared: int, own: int, use: str) -> Tensor:
        """Numbers in [0, 1): see `Draws`. Nothing is shared."""
        half = torch.full((len(rows), count, shared + own), 0.5, device=rows.device)
        return ops.random_start(half, eps=0.5, **self._key(rows, use)).clamp_(max=_BELOW_ONE)

    def normal(self, rows: Tensor, count: int, use: str) -> Tensor:
        """Standard normal numbers: see `Draws`."""
        zero = torch.zeros(len(rows), count, device=rows.device)
        return ops.random_start(zero, eps=1.0, norm="gaussian", lo=-_FAR, hi=_FAR, **self._key(rows, use))

    def _key(self, rows: Tensor, use: str) -> dict[str, Any]:
        return {"seed": seed_of(self._seed, use), "index": self._index[rows], "draw": self._draw}


class Replayed:
    """The numbers of the official AutoAttack: torch's generator on the CPU, seeded for every batch.

    They come in the order of the calls, so they depend on the batch and on who left it.

    Args:
        seed: as the official code was given it.
    """

    def __init__(self, seed: int) -> None:
        self._generator = replayed(seed)

    @property
    def state(self) -> Tensor:
        """That of the generator."""
        return self._generator.get_state()

    @state.setter
    def state(self, state: Tensor) -> None:
        self._generator.set_state(state)

    def uniform(self, rows: Tensor, count: int, shared: int, own: int, use: str) -> Tensor:  # noqa: ARG002
        """Numbers in [0, 1): see `Draws`."""
        n = len(rows)
        flat = torch.rand(count, shared + n * own, generator=self._generator)
        common = flat[:, None, :shared].expand(count, n, shared)
        each = flat[:, shared:].view(count, n, own)
        return torch.cat([common, each], dim=2).transpose(0, 1).to(rows.device)

    def normal(self, rows: Tensor, count: int, use: str) -> Tensor:  # noqa: ARG002
        """Standard normal numbers: see `Draws`."""
        return torch.randn(len(rows), count, generator=self._generator).to(rows.device)
