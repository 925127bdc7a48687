"""PGD of Foolbox: ``pip install foolbox GitPython``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bat_fast.integrations.attacker import Attacker, as_module, host

_HOST = host("foolbox")


class Flip(nn.Module):
    """Images with one axis turned around, as for networks that take blue, green, red."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [N, C, H, W] with the axis turned around."""
        return x.flip(self.axis)


def network_of(model: Any, channels: int) -> nn.Module:
    """The network in a ``PyTorchModel`` with its preprocessing, as a module that engines can take apart.

    The host keeps it in a function alone, and functions are attacked as they are.

    Raises:
        TypeError: it is another kind of model.
    """
    cells = getattr(getattr(model, "_model", None), "__closure__", None) or ()
    net = next((cell.cell_contents for cell in cells if isinstance(cell.cell_contents, nn.Module)), None)
    if not isinstance(model, _HOST.PyTorchModel) or net is None:
        raise TypeError(f"model must be a foolbox.PyTorchModel, got {type(model).__name__}")
    mean, std, flipped = model._preprocess_args
    mean, std = (None if value is None else value.raw.flatten().tolist() for value in (mean, std))
    module = as_module(net, mean, std, channels)
    return module if flipped is None else nn.Sequential(Flip(flipped), module)


class _Fast:
    """The run of a ``BaseGradientDescent``, as `bat_fast.PGD`; what surrounds it stays that of the host."""

    norm = "linf"
    steps: int
    rel_stepsize: float
    abs_stepsize: float | None
    random_start: bool

    def __init__(self, *, options: dict[str, Any] | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.options, self._attacker = options or {}, Attacker()
        self._seen: tuple[Any, Any, Any] = (None, None, None)

    def run(self, model: Any, inputs: Any, criterion: Any, *, epsilon: float, **kwargs: Any) -> Any:
        """Adversarial images like ``inputs`` within ``epsilon``, in the unit of ``model.bounds``."""
        _HOST.attacks.base.raise_if_kwargs(kwargs)
        x, restore = _HOST.attacks.base.ep.astensor_(inputs)
        criterion = _HOST.attacks.base.get_criterion(criterion)
        targets = getattr(criterion, "target_classes", None)
        if targets is None and not isinstance(criterion, _HOST.criteria.Misclassification):
            raise ValueError(f"criterion: not Misclassification or TargetedMisclassification: {criterion!r}")
        prepared = getattr(model, "_preprocess_args", None)  # a new tuple wherever it changes
        if self._seen[0] is not model or self._seen[1] is not prepared:
            self._seen = model, prepared, network_of(model, x.shape[1])
        classes = (criterion.labels if targets is None else targets).raw.to(torch.int64)
        step = self.rel_stepsize * epsilon if self.abs_stepsize is None else self.abs_stepsize
        found = self._attacker(
            self._seen[2], x.raw, classes, None if targets is None else classes, eps=epsilon, step_size=step,
            steps=self.steps, random_start=self.random_start, norm=self.norm, lo=model.bounds.lower,
            hi=model.bounds.upper, **self.options,
        )  # fmt: skip
        return restore(type(x)(found))


class LinfPGD(_Fast, _HOST.attacks.LinfPGD):  # type: ignore[misc, name-defined]
    """``foolbox.attacks.LinfPGD``, computed by `bat_fast.PGD`.

    Args:
        rel_stepsize, abs_stepsize, steps, random_start: as in the host.
        options: further ones of `bat_fast.PGD`, such as ``{"precision": "bf16"}``.
    """


class L2PGD(_Fast, _HOST.attacks.L2PGD):  # type: ignore[misc, name-defined]
    """``foolbox.attacks.L2PGD``, likewise; its random start is that of `bat_fast.ops.random_start`."""

    norm = "l2"
