"""The activations of a network, by name (smooth adversarial training, Xie et al. 2020, arXiv:2006.14536)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from bat_fast import ops
from bat_fast.spelling import hint, meant

_BETA_RAW = 20.0  # where the paper starts


class SmoothReLU(nn.Module):
    """``x - log(b x + 1) / b`` for x >= 0, else 0, with a learnable ``b = beta_raw^2`` per layer.

    Args:
        beta_raw: the value that learning starts from; the paper uses 20.
    """

    def __init__(self, beta_raw: float = _BETA_RAW) -> None:
        super().__init__()
        self.beta_raw = nn.Parameter(torch.tensor(float(beta_raw)))

    def forward(
        self,
        x: Tensor,  # any shape
    ) -> Tensor:
        """f(x), of the shape of ``x``."""
        return ops.smooth_relu(x, self.beta_raw)


class Softplus(nn.Module):
    """Parametric softplus, ``log(1 + exp(a x)) / a``.

    Args:
        sharpness: a; the paper uses 10, its code 1.
    """

    def __init__(self, sharpness: float = 10.0) -> None:
        super().__init__()
        self.sharpness = float(sharpness)

    def forward(
        self,
        x: Tensor,  # any shape
    ) -> Tensor:
        """f(x), of the shape of ``x``."""
        return ops.softplus(x, sharpness=self.sharpness)

    def extra_repr(self) -> str:
        return f"sharpness={self.sharpness:g}"


_ALIASES = {"swish": "silu"}
_FACTORIES: dict[str, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),  # its backward reads the output only, so no copy is kept
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "celu": nn.CELU,
    "mish": nn.Mish,
    "softplus": Softplus,
    "smooth_relu": SmoothReLU,
}


def activations() -> list[str]:
    """Every name that `activation` takes, aliases included."""
    return [*_FACTORIES, *_ALIASES]


def activation(name: str) -> Callable[[], nn.Module]:
    """What makes one activation layer.

    Args:
        name: ``relu``, ``silu`` (or ``swish``), ``gelu``, ``elu``, ``celu``, ``mish``, ``softplus``
            (``log(1 + exp(10 x)) / 10``), or ``smooth_relu`` (learnable).

    Returns:
        A function of no arguments. Call it once per place, so that no two places share a layer.

    Raises:
        ValueError: no such activation.
    """
    key = meant(name, activations()) or name
    key = _ALIASES.get(key, key)
    if key not in _FACTORIES:
        there = f"{', '.join(activations())}{hint(name, activations())}"
        raise ValueError(f"activation: there is no {name!r}; there are {there}")
    return _FACTORIES[key]


def replace_relu(module: nn.Module, name: str) -> int:
    """Replace every ReLU and ReLU6 inside ``module`` by activation ``name``.

    Returns:
        How many layers were replaced. ReLUs called as functions cannot be seen.

    Raises:
        ValueError: no such activation.
    """
    make = activation(name)
    count = 0
    for parent in list(module.modules()):
        for child_name, child in list(parent.named_children()):
            if isinstance(child, (nn.ReLU, nn.ReLU6)):
                setattr(parent, child_name, make().train(child.training))
                count += 1
    return count


def smooth(model: nn.Module, name: str) -> nn.Module:
    """Give an existing model a smooth activation: every ReLU in it becomes ``name``, in place.

    The weights stay; new parameters (those of ``smooth_relu``) are on the device of the model. Make the
    optimiser afterwards.

    Args:
        model: any model whose ReLUs are layers, of this project, timm or torchvision.
        name: see `activation`.

    Returns:
        ``model``.

    Raises:
        ValueError: no such activation, or no ReLU layer to replace.
    """
    if not replace_relu(model, name):
        raise ValueError(f"smooth: {type(model).__name__} has no ReLU layer that {name} could replace")
    first = next(model.parameters(), None)
    return model if first is None else model.to(first.device)
