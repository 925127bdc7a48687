"""What attacks have found of a batch so far, where it outlives the process."""

from __future__ import annotations

import time
from typing import Protocol

from torch import Tensor

_EVERY = 10.0  # seconds: a file takes up to a tenth of one


class Done(Protocol):
    """Where something is kept that was found in part."""

    def get(self, name: str) -> dict[str, Tensor] | None:
        """What `put` was given by that name, on the CPU; None where there is nothing."""

    def put(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Keep ``tensors``."""

    def within(self, name: str) -> Done:
        """What has ``name`` before its names."""

    def drop(self) -> None:
        """Delete all."""


class Progress:
    """How far an attack is with one batch: kept every few seconds, to go on with after a kill.

    Args:
        done: where it is kept, which is for this attack on this batch alone; None keeps nothing.
    """

    def __init__(self, done: Done | None = None) -> None:
        self.done, self._kept_at = done, time.monotonic()

    def found(self, name: str) -> dict[str, Tensor] | None:
        """What was kept by that name, on the CPU."""
        return None if self.done is None else self.done.get(name)

    def keep(self, name: str, **state: Tensor) -> None:
        """Keep ``state`` in the place of what was kept by that name, where it is time to."""
        if self.done is not None and time.monotonic() - self._kept_at >= _EVERY:
            self.done.put(name, state)
            self._kept_at = time.monotonic()
