"""PGD beside an ``Accelerator``: ``pip install accelerate``."""

from __future__ import annotations

from typing import Any

from torch import nn

from bat_fast.attacks import PGD

_PRECISIONS = {"no": None, "bf16": "bf16", "fp16": "fp16"}


def attack_for(accelerator: Any, model: nn.Module, eps: float = 8 / 255, **options: Any) -> PGD:
    """`bat_fast.PGD` on a model that ``accelerator.prepare`` returned, in the precision of its training.

    The host puts autocast into the ``forward`` of the model, which an engine that folds the network passes
    by: so the attack has to be told.

    Args:
        accelerator: an ``accelerate.Accelerator``.
        model: prepared; data-parallel ones too.
        eps, options: of `bat_fast.PGD`; a ``precision`` among them is kept.

    Raises:
        ValueError: the accelerator computes in a precision that attacks do not know.
    """
    mixed = accelerator.mixed_precision
    if "precision" not in options:
        if mixed not in _PRECISIONS:
            raise ValueError(
                f"mixed_precision: attacks know {list(_PRECISIONS)}, got {mixed!r}: say precision="
            )
        options["precision"] = _PRECISIONS[mixed]
    return PGD(accelerator.unwrap_model(model), eps, **options)
