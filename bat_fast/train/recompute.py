"""Activation checkpointing: less memory for the training pass, which computes its blocks twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


class Recompute(nn.Module):
    """``model`` with checkpointed blocks: they keep their inputs alone, and run again in the backward pass.

    The switch is on during the forward pass only, so an attack meets the model as it is. Call the backward
    pass inside `bat_fast.attacks.kept_buffers`, or batch norm takes every batch into its statistics twice.

    Args:
        model: shares its parameters and modes. Has ``set_grad_checkpointing``, as the models of timm do.

    Raises:
        ValueError: the model has no blocks to run again.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model: tuple[Any] = (model,)  # not a part of this module: its parameters are found once
        with self._switched_on():
            pass

    def forward(self, *args: Any, **options: Any) -> Any:
        """What the model returns."""
        with self._switched_on():
            return self._model[0](*args, **options)

    @contextmanager
    def _switched_on(self) -> Iterator[None]:
        (model,) = self._model
        try:
            model.set_grad_checkpointing(True)
        except (AttributeError, AssertionError):  # the latter is how timm says no
            kind = type(getattr(model, "net", model)).__name__  # of timm, where it is one
            raise ValueError(
                f"optim.grad_checkpointing: {kind} has no blocks that could run again (preactresnet, wrn and "
                "most models of timm have); to save memory use optim.micro_batches"
            ) from None
        try:
            yield
        finally:
            model.set_grad_checkpointing(False)
