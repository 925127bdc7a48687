"""What attacks have found of a batch so far, where it outlives the process."""

from __future__ import annotations

import time
from typing import Protocol

import torch
from torch import Tensor

from bat_fast._seal import digest

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


def of_batch(done: Done | None, draw: int, *batch: Tensor | None) -> Done | None:
    """The part of ``done`` that is of these tensors and this draw alone: no other batch finds it."""
    if not done:
        return None
    keys = ("" if tensor is None else tensor_key(tensor) for tensor in batch)
    return done.within(digest(" ".join((str(draw), *keys)).encode())[:16])


def tensor_key(tensor: Tensor) -> str:
    """A hash of a tensor."""
    plain = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return digest(f"{tensor.dtype} {list(tensor.shape)}".encode(), plain)


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

    def keep(self, name: str, number: int, **state: Tensor | None) -> None:
        """Keep that ``number`` is next, and ``state``, in the place of what that name had, where it is
        time to."""
        if self.done is not None and time.monotonic() - self._kept_at >= _EVERY:
            known = {key: tensor for key, tensor in state.items() if tensor is not None}
            self.done.put(name, known | {"number": torch.tensor(number)})
            self._kept_at = time.monotonic()
