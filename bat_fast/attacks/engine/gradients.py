"""The gradients of a backward pass through a program, one per value."""

from __future__ import annotations

import torch
from torch import Tensor


class Gradients:
    """Sums of the gradients that reach each value; a tensor that nobody else holds is added to in place.

    Args:
        count: number of values.
    """

    def __init__(self, count: int) -> None:
        self._sums: list[Tensor | None] = [None] * count
        self._own = [False] * count

    def add(self, slot: int, grad: Tensor, *, own: bool) -> None:
        """Add ``grad`` to the gradient of a value; ``own`` says that it may be overwritten."""
        known = self._sums[slot]
        if known is None:
            self._sums[slot], self._own[slot] = grad, own
        elif self._own[slot]:
            known.add_(grad)
        elif own and grad.dtype == known.dtype:
            self._sums[slot], self._own[slot] = grad.add_(known), True
        else:
            self._sums[slot], self._own[slot] = known + grad, True

    def add_sampled(self, slot: int, grad: Tensor, step: int, shape: tuple[int, ...]) -> None:
        """Add ``grad`` at every ``step``-th pixel each way of a value of ``shape`` [N, C, H, W]."""
        known = self._sums[slot]
        if known is None or not self._own[slot]:
            full = torch.zeros(shape, dtype=grad.dtype, device=grad.device).to(
                memory_format=torch.channels_last
            )
            known = full if known is None else known + full
            self._sums[slot], self._own[slot] = known, True
        n, c, h, w = known.stride()  # one call: two slices cost 0.1 ms between convolutions
        known.as_strided(grad.shape, (n, c, h * step, w * step), known.storage_offset()).add_(grad)

    def take(self, slot: int) -> tuple[Tensor | None, bool]:
        """The gradient of a value, which is forgotten, and whether it may be overwritten."""
        grad, self._sums[slot] = self._sums[slot], None
        return grad, self._own[slot]

    def take_if(self, slot: int, dtype: torch.dtype) -> Tensor | None:
        """The gradient of a value so far, if it has ``dtype``: the caller adds to it and hands in the sum."""
        known = self._sums[slot]
        if known is None or known.dtype != dtype:
            return None
        self._sums[slot] = None
        return known
