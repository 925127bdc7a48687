"""The model that learns: under autocast, compiled, with activation checkpointing, or as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bat_fast.config import OptimConfig


def learner_of(model: nn.Module, optim: OptimConfig) -> nn.Module:
    """What the training pass calls instead of ``model``, which the attack meets as it is.

    Args:
        model: shares its parameters and modes with the result.
        optim: ``grad_checkpointing``, ``compile`` and ``precision`` of the configuration.

    Raises:
        ValueError: ``optim.grad_checkpointing`` with a model that has no blocks to run again, or
            ``optim.compile`` where torch.compile does not work.
    """
    learner = Recompute(model) if optim.grad_checkpointing else model
    learner = Compiled(learner) if optim.compile else learner
    return Autocast(learner) if optim.precision == "bf16" else learner


class Autocast(nn.Module):
    """``model`` under autocast, with float32 results: losses and updates stay in float32.

    bfloat16 has the range of float32, so no gradient needs scaling.

    Args:
        model: shares its parameters and modes.
        dtype: of convolutions and matrix products.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self._model = (model,)  # not a part of this module: whoever lists the parameters finds them once
        self._dtype = dtype

    def forward(self, x: Tensor, **options: Any) -> Any:
        """What the model returns for ``x`` [N, C, H, W], in float32."""
        with torch.autocast(x.device.type, self._dtype):
            results = self._model[0](x, **options)
        return tuple(t.float() for t in results) if isinstance(results, tuple) else results.float()


class Compiled(nn.Module):
    """``model`` through torch.compile, which fuses what lies between convolutions, forward and backward.

    The model itself stays as it is, with its names and for all others who call it: attack, validation,
    average. It is compiled at the first call, and once more for each other shape of images, eight in all:
    later ones run as they are, with a warning of torch.

    Args:
        model: shares its parameters and modes.

    Raises:
        ValueError: torch.compile does not work here, which a small function shows.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        device = next(model.parameters()).device
        try:
            torch.compile(_small)(torch.ones(8, device=device))
            # Dropout draws the numbers that it draws without.
            compiled = torch.compile(model, dynamic=False, options={"fallback_random": True})
        except Exception as error:
            what = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise ValueError(
                f"optim.compile: torch.compile does not work here ({what}); install what it needs, on a CPU "
                "a C++ compiler (g++), on a GPU Triton and a C compiler, or leave optim.compile off"
            ) from error
        self._model = (compiled,)  # not a part of this module: its parameters are found once

    def forward(self, *args: Any, **options: Any) -> Any:
        """What the model returns."""
        return self._model[0](*args, **options)


def _small(x: Tensor) -> Tensor:
    return x.sin() + 1


class Recompute(nn.Module):
    """Activation checkpointing: the blocks of ``model`` keep their inputs alone, and run again backwards.

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
