"""The model as an attack sees it: logits, and the gradient at the pixels for a gradient at the logits."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn


class Network(Protocol):
    """What an engine makes of a model. One `forward`, then at most one `backward` that belongs to it."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of pixels ``x`` [N, C, H, W], in the precision of the engine."""

    def backward(self, grad: Tensor) -> Tensor:
        """Gradient [N, C, H, W] at the pixels, given that at the logits, [N, K]."""


class Plain:
    """The model itself under autograd, for whatever no other engine understands.

    Args:
        model: parameters must not require gradients (`bat_fast.attacks.frozen`).
        dtype: autocast of the model; None is the precision of its weights.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype | None) -> None:
        self.model, self.dtype = model, dtype

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K]."""
        with torch.enable_grad(), autocast(x.device.type, self.dtype):
            self._leaf = x.detach().requires_grad_()
            self._logits: Tensor = self.model(self._leaf)
        return self._logits.detach()

    def backward(self, grad: Tensor) -> Tensor:
        """Gradient at the pixels, [N, C, H, W]."""
        logits, leaf = self._logits, self._leaf
        del self._logits, self._leaf
        (result,) = torch.autograd.grad(logits, leaf, grad.to(logits.dtype))
        return result


def autocast(device_type: str, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Autocast to ``dtype``; None leaves things as the caller has them."""
    return nullcontext() if dtype is None else torch.autocast(device_type, dtype)


def unused_numbers(x: Tensor) -> AbstractContextManager[object]:
    """Random numbers drawn inside, on the CPU or the device of ``x``, come again afterwards."""
    return torch.random.fork_rng([x.device] if x.is_cuda and torch.cuda.is_initialized() else [])
