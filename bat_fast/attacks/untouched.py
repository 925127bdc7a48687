"""A model held still while an attack differentiates through it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Parts(NamedTuple):
    """What a model is made of, at any depth."""

    modules: list[nn.Module]
    parameters: list[nn.Parameter]
    buffers: list[Tensor]

    @classmethod
    def of(cls, model: nn.Module) -> Parts:
        """The parts of ``model``."""
        modules = list(model.modules())
        parameters = [p for module in modules for p in module._parameters.values() if p is not None]
        buffers = [b for module in modules for b in module._buffers.values() if b is not None]
        return cls(modules, parameters, buffers)


_HELD: dict[int, Parts] = {}  # by the id of a model, which lives at least as long as the guard around it


@contextmanager
def untouched(model: nn.Module, bn_mode: str, *, keep: bool = True) -> Iterator[None]:
    """Hold ``model`` still: parameters take no gradient inside, and afterwards everything is as it was found.

    ``bn_mode="eval"`` puts the whole model in eval mode. ``"train"`` normalises with the statistics of
    the batch: a model in train mode keeps the modes of its sub-modules (frozen ones stay frozen), one in
    eval mode is put in train mode. Modes, buffers and ``requires_grad`` flags are restored, also when
    the body raises; with ``keep=False`` buffers stay as the passes inside have left them.

    Guards of one model may lie in each other, in any modes. The outermost one walks over the modules, and the
    others know them from there, and so do engines (`parts_of`): so add or replace no modules, parameters or
    buffers inside.
    """
    outer = _HELD.get(id(model))
    parts = outer or Parts.of(model)
    modes = [(module, module.training) for module in parts.modules]
    learning = [parameter for parameter in parts.parameters if parameter.requires_grad]
    if learning and learning[0].is_inference():
        raise ValueError(
            "the model was made under torch.inference_mode, which autograd forbids: make it outside"
        )
    with _kept(parts.buffers) if keep and bn_mode == "train" else nullcontext():
        try:
            _HELD[id(model)] = parts
            if bn_mode == "train" and not model.training:
                model.train()
            elif bn_mode != "train" and any(training for _, training in modes):
                model.eval()
            for parameter in learning:
                parameter.requires_grad_(False)
            yield
        finally:
            if outer is None:
                _HELD.pop(id(model), None)
            for parameter in learning:
                parameter.requires_grad_(True)
            for module, training in modes:
                if module.training != training:
                    module.training = training


def parts_of(model: nn.Module) -> Parts:
    """The parts of ``model``, which the outermost `untouched` around the caller has found already."""
    return _HELD.get(id(model)) or Parts.of(model)


def kept_buffers(model: nn.Module) -> AbstractContextManager[None]:
    """Put the buffers of ``model`` (running statistics) afterwards back to what they were before."""
    return _kept(model.buffers())


@contextmanager
def _kept(buffers: Iterable[Tensor]) -> Iterator[None]:
    with torch.no_grad():
        kept = [(buffer, buffer.clone()) for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
