"""A model held still while an attack differentiates through it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn


@contextmanager
def untouched(model: nn.Module, bn_mode: str) -> Iterator[None]:
    """Hold ``model`` still: parameters take no gradient inside, and afterwards everything is as it was found.

    ``bn_mode="eval"`` puts the whole model in eval mode. ``"train"`` normalises with the statistics of
    the batch: a model in train mode keeps the modes of its sub-modules (frozen ones stay frozen), one in
    eval mode is put in train mode. Modes, buffers and ``requires_grad`` flags are restored, also when
    the body raises.
    """
    modes, learning = [], []
    for module in model.modules():  # once: the walk costs more than a step of a small network
        modes.append((module, module.training))
        learning += [p for p in module._parameters.values() if p is not None and p.requires_grad]
    with kept_buffers(model) if bn_mode == "train" else nullcontext():
        if bn_mode == "train" and not model.training:
            model.train()
        elif bn_mode != "train" and any(training for _, training in modes):
            model.eval()
        for parameter in learning:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in learning:
                parameter.requires_grad_(True)
            for module, training in modes:
                if module.training != training:
                    module.training = training


@contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """Put the buffers of ``model`` (running statistics) afterwards back to what they were before."""
    with torch.no_grad():
        kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
