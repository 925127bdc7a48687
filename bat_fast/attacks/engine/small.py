"""Small networks on a CPU: one native call runs all steps of an attack, 32 images at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bat_fast import ops
from bat_fast.attacks.engine.plan import Plan
from bat_fast.attacks.engine.program import Program
from bat_fast.ops.network import LANES, Map, network_attack_, network_gradient, network_plan

# Beyond these oneDNN is as fast (2 threads of Zen 4: 0.8 x at 6.3 M weights, 1.2 x at 200 000 values).
_MOST_WEIGHTS = 1 << 22
_MOST_VALUES = 1 << 17  # of one image, in all layers together
_TINY = 1 << 20  # multiplications for an image; below, calls cost more than what they compute


def small_network(program: Program, x: Tensor) -> SmallNetwork | None:
    """The network that replaces ``program`` for images like ``x``; None where ``program`` must run itself."""
    # Without these instructions a fused multiply-add is a call.
    able = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    known = x.is_cpu and x.dim() == 4 and x.dtype in (torch.float32, torch.float64)
    if not able or not known or not ops.is_native("network_attack_", "cpu"):
        return None
    try:
        return SmallNetwork(program, x)
    except ValueError:
        return None


class SmallNetwork:
    """A program as one plan of `bat_fast.ops.network`.

    Args:
        program: the network.
        x: [N, C, H, W] images of the shape that it is for.

    Raises:
        ValueError: the network is not small, or has a layer that is not known there.
    """

    def __init__(self, program: Program, x: Tensor) -> None:
        plan = Plan(program.layers, program.first, Map(x.shape[2], x.shape[3], x.shape[1]), x.dtype)
        classes = plan.classes(program.last)
        if plan.weights > _MOST_WEIGHTS or plan.values > _MOST_VALUES:
            raise ValueError(f"{plan.weights} weights and {plan.values} values are not small")
        if plan.work > _TINY and _occupancy(len(x)) < 0.5:
            raise ValueError("too few images for the threads")
        weights = x.new_zeros(plan.weights)
        self._refresh = [bind(weights) for bind in plan.binders]
        self.small: dict[str, Any] = {
            "plan": network_plan(plan.layers), "weights": weights, "classes": classes
        }  # fmt: skip

    def refresh(self) -> None:
        """Take over the weights and running statistics as they are now."""
        for refresh in self._refresh:
            refresh()

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of ``x`` [N, C, H, W]."""
        self._x = x
        return network_gradient(x, None, **self.small)[0]

    def backward(self, grad: Tensor) -> Tensor:
        """Gradient [N, C, H, W] at the pixels, from ``grad`` [N, K] at the logits."""
        _, result = network_gradient(self._x, grad, **self.small)
        assert result is not None
        return result

    def both(self, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N, K] of ``x``, and the gradient at it, where ``grad`` [N, K] is known beforehand."""
        logits, result = network_gradient(x, grad, **self.small)
        assert result is not None
        return logits, result

    def climb(self, adv: Tensor, clean: Tensor, **how: Any) -> None:
        """All steps of PGD; arguments as in `bat_fast.ops.network.network_attack_`."""
        network_attack_(adv, clean, **how, **self.small)


def _occupancy(images: int) -> float:
    """Lane occupancy: the share of the vector lanes of all threads that ``images`` images fill."""
    rounds = -(-images // (LANES * torch.get_num_threads()))
    return images / max(1, rounds * LANES * torch.get_num_threads())
