"""The model as an attack sees it: logits, and the gradient at the pixels for a gradient at the logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bat_fast._logits import logits_of


class AttackedModel(Protocol):
    """What an engine makes of a model: logits, and the gradient at the pixels."""

    @property
    def climb(self) -> Callable[..., None] | None:
        """All steps of PGD in one call, where the engine has that, else None.

        It takes ``adv`` and ``clean`` [N, C, H, W] and the keywords of `bat_fast.ops.network.network_attack_`
        but for those of the network, and moves ``adv`` in place.
        """

    @property
    def small(self) -> Mapping[str, Any] | None:
        """What the operators on small networks take of it: plan, weights, classes; None for a larger one."""

    def refresh(self) -> None:
        """Take over the weights and running statistics as they are now, before an attack.

        Reads nothing on the host, writes where it wrote before, and keeps nothing that it makes: on a GPU it
        is captured with the steps.
        """

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of pixels ``x`` [N, C, H, W], in the precision of the engine.

        At most one `backward` follows, which belongs to the last `forward`.
        """

    def backward(self, grad: Tensor) -> Tensor:
        """Gradient [N, C, H, W] at the pixels, from the gradient ``grad`` [N, K] at the logits."""

    def both(self, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N, K] of ``x``, and the gradient at it, where ``grad`` [N, K] is known beforehand."""


class Plain:
    """The model itself under autograd, for models that no other engine understands.

    Args:
        model: parameters must not require gradients (`bat_fast.attacks.untouched`).
        dtype: autocast of the model; None is the precision of its weights.
    """

    climb = small = None

    def __init__(self, model: nn.Module, dtype: torch.dtype | None) -> None:
        self.model, self.dtype = model, dtype
        self._kept: tuple[Tensor, Tensor] | None = None

    def refresh(self) -> None:
        """Nothing: it has no weights of its own."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of ``x`` [N, C, H, W]."""
        self._kept = None  # the graph of a forward pass that no backward pass followed
        with torch.enable_grad(), autocast(x.device.type, self.dtype):
            leaf = x.detach().requires_grad_()
            logits = logits_of(self.model(leaf), len(x))
        self._kept = logits, leaf
        return logits.detach()

    def backward(self, grad: Tensor) -> Tensor:
        """Gradient [N, C, H, W] at the pixels, from ``grad`` [N, K]."""
        assert self._kept is not None, "backward without forward"
        logits, leaf = self._kept
        self._kept = None
        (result,) = torch.autograd.grad(logits, leaf, grad.to(logits.dtype))
        return result

    def both(self, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N, K] of ``x``, and the gradient at it, where ``grad`` [N, K] is known beforehand."""
        return self.forward(x), self.backward(grad)


def autocast(device_type: str, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Autocast to ``dtype``; None leaves the autocast of the caller as it is."""
    return nullcontext() if dtype is None else torch.autocast(device_type, dtype)


def preserved_rng(x: Tensor) -> AbstractContextManager[object]:
    """Preserve the state of the random generators of the CPU and of the device of ``x``.

    Code inside draws the numbers that come next, and code afterwards draws them again.
    """
    return torch.random.fork_rng([x.device] if x.is_cuda and torch.cuda.is_initialized() else [])
