"""What the attacks for other frameworks share: hosts, networks with what lies in front of them, and PGD."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bat_fast._install import install
from bat_fast.attacks import PGD, modules
from bat_fast.models import Normalize


def host(name: str) -> ModuleType:
    """The host ``name``, imported.

    Raises:
        ImportError: it, or something that it imports, is not installed; the message says what to install.
    """
    try:
        return import_module(name)
    except ImportError as error:
        missing = (error.name or name).partition(".")[0]
        needs = name if missing == name else f"{name} needs {missing}"
        raise ImportError(f"{needs} is not installed: {install(missing, '')}", name=missing) from error


def as_module(
    net: nn.Module,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channels: int | None = None,
) -> nn.Module:
    """``net`` behind its normalisation, as layers: an engine folds those, and no function of the host.

    Args:
        net: takes normalised images [N, C, H, W]; of a data-parallel one, the module inside.
        mean, std: of each channel, or one number for all; None is 0 and 1.
        channels: C, where one number stands for all.

    Raises:
        TypeError: ``net`` is no module. ValueError: ``mean`` or ``std`` does not fit.
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(net).__name__}: pass the network itself")
    net = modules.as_module(net)
    if mean is None and std is None:
        return net
    count = channels or max(len(mean or ()), len(std or ()))
    numbers = [list(values or [other]) for values, other in ((mean, 0.0), (std, 1.0))]
    weight = next(net.parameters(), None)
    with torch.inference_mode(False):  # autograd takes no buffers that were made in it
        layer = Normalize(*(values * count if len(values) == 1 else values for values in numbers))
        return nn.Sequential(layer if weight is None else layer.to(weight.device), net)


class Attacker:
    """PGD as hosts call it: network, images and settings together, each time.

    What is the same as in the last call is kept: programs belong to a module, and captured graphs to an
    attack. Random starts are numbered by the call. Copies and pickles begin anew.
    """

    def __init__(self) -> None:
        self._calls = 0
        self._last: tuple[Any, ...] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_calls": self._calls, "_last": None}

    def __call__(
        self,
        net: nn.Module,
        x: Tensor,
        y: Tensor,
        targets: Tensor | None = None,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **options: Any,
    ) -> Tensor:
        """Adversarial images like ``x``.

        Args:
            net, mean, std: as in `as_module`.
            x: [N, C, H, W] pixels.
            y: [N] classes.
            targets: [N] classes to move towards, or None.
            options: of `bat_fast.PGD`.
        """
        kept = self._last
        if kept is None or kept[0] is not net or kept[1] != (mean, std, x.shape[1]):
            kept = net, (mean, std, x.shape[1]), as_module(net, mean, std, x.shape[1]), None, None
        _, numbers, module, before, attack = kept
        # Tensors are numbers of the images of one batch, and cannot be compared as a whole.
        known = None if any(isinstance(value, Tensor) for value in options.values()) else options
        if attack is None or known is None or before != known:
            attack = PGD(module, **options)
        self._last = net, numbers, module, known, attack
        self._calls += 1
        return attack(x, y, targets, draw=self._calls - 1)
