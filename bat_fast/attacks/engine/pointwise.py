"""Activations with a known derivative: computed in place, gradient from one saved tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from bat_fast.attacks.engine.names import Names
from bat_fast.ops.affine import unchecked_affine_grad_

_aten = torch.ops.aten


@dataclass(frozen=True)
class Pointwise:
    """An activation. The gradient is that of autograd, from the same kernels."""

    name: str
    value_: Callable[[Tensor], Tensor]
    """Of z: may overwrite z where `saves_output`, else makes a new tensor."""
    backward: Callable[[Tensor, Tensor], Tensor]
    """(gradient, saved tensor) -> new gradient."""
    saves_output: bool = False
    """What `backward` needs: the output, else z."""

    def into(self, grad: Tensor, saved: Tensor, own: bool) -> Tensor:
        """The gradient of z, written over ``grad`` where that is allowed."""
        if own and self.name == "relu" and grad.dtype == saved.dtype:
            unchecked_affine_grad_(grad, saved, None, None)
            return grad
        return self.backward(grad.to(saved.dtype), saved)


RELU = Pointwise("relu", torch.relu_, lambda g, y: _aten.threshold_backward(g, y, 0), saves_output=True)
_SILU = Pointwise("silu", F.silu, _aten.silu_backward)
_MISH = Pointwise("mish", F.mish, _aten.mish_backward)


def of(node: fx.Node, names: Names) -> Pointwise | None:
    """The activation that ``node`` computes, if it is one of this file."""
    if node.op == "call_module":
        module = names.get_submodule(str(node.target))
        if isinstance(module, nn.GELU):
            how = module.approximate
            return Pointwise(
                "gelu",
                lambda z: F.gelu(z, approximate=how),
                lambda g, z: _aten.gelu_backward(g, z, approximate=how),
            )
        if isinstance(module, nn.LeakyReLU):
            slope = module.negative_slope
            return Pointwise(
                "leaky_relu",
                lambda z: F.leaky_relu(z, slope),
                lambda g, z: _aten.leaky_relu_backward(g, z, slope, False),
            )
        kinds = {nn.ReLU: RELU, nn.SiLU: _SILU, nn.Mish: _MISH}
        return kinds.get(type(module))
    functions = {F.relu: RELU, torch.relu: RELU, torch.relu_: RELU, F.silu: _SILU, F.mish: _MISH}
    methods = {"relu": RELU, "relu_": RELU}
    if node.op == "call_function":
        return functions.get(node.target)  # type: ignore[arg-type]
    return methods.get(str(node.target)) if node.op == "call_method" else None
