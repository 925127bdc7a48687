"""The activations of a network, by name (smooth adversarial training, Xie et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

_ALIASES = {"swish": "silu"}
_FACTORIES: dict[str, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),  # its backward reads the output only, so no copy is kept
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "celu": nn.CELU,
    "mish": nn.Mish,
    "softplus": partial(nn.Softplus, beta=10.0),  # log(1 + exp(10 x)) / 10, the paper's sharpness
}


def activations() -> list[str]:
    """Every name that `activation` takes, aliases included."""
    return [*_FACTORIES, *_ALIASES]


def activation(name: str) -> Callable[[], nn.Module]:
    """What makes one activation layer.

    Args:
        name: ``relu``, ``silu`` (or ``swish``), ``gelu``, ``elu``, ``celu``, ``mish``, or ``softplus``
            (``log(1 + exp(10 x)) / 10``).

    Returns:
        A function of no arguments. Call it once per place, so that no two places share a layer.

    Raises:
        ValueError: no such activation.
    """
    key = name.lower()
    key = _ALIASES.get(key, key)
    if key not in _FACTORIES:
        raise ValueError(f"activation: there is no {name!r}; there are {', '.join(activations())}")
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
