"""Which engine runs an attack."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bat_fast.attacks.engine.freeze import freezer_of, say_once
from bat_fast.attacks.engine.network import Network, Plain
from bat_fast.attacks.engine.trace import Compiled, Unsuitable

ENGINES = ("auto", "eager", "frozen")


class Engine:
    """Finds the network for a batch.

    Args:
        name: ``eager``: the model under autograd. ``frozen``: constant weights, folded, packed and without
            autograd; where the model cannot be taken apart, ``eager``, with one warning. ``auto``: the same.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def network(self, model: nn.Module, x: Tensor, dtype: torch.dtype | None) -> Network:
        """The network for images like ``x``; ``dtype`` is the precision that the attack asks for."""
        if self.name == "eager":
            return Plain(model, dtype)
        try:
            return freezer_of(model).program(model, x, _precision(x.device.type, dtype))
        except Unsuitable as error:
            if self.name != "auto" or not isinstance(error, Compiled):
                say_once(model, str(error))
            return Plain(model, dtype)


def _precision(device_type: str, dtype: torch.dtype | None) -> torch.dtype | None:
    """That of the attack, else that of the autocast around it."""
    if dtype is None and torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return dtype
