"""The precisions of a model, of its images and of an attack on it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

HALF = (torch.float16, torch.bfloat16)
AUTOCAST = {None: None, "fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The dtype of autocast for the argument ``precision`` of an attack."""


def weights_dtype(model: nn.Module) -> torch.dtype | None:
    """The dtype of the first weight, None where there is none."""
    return next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), None)


def working_dtype(model: nn.Module, x: Tensor) -> torch.dtype:
    """The dtype of the images while they are attacked: float32, or float64 for a model of that.

    Raises:
        TypeError: the images have more digits than the model takes, or are no pixels.
    """
    weights = weights_dtype(model)
    if x.dtype in HALF:
        x = x.new_empty(0, dtype=torch.float32)
    if weights == torch.float64 and x.dtype == torch.float32:
        return torch.float64
    if x.dtype == torch.float64 and weights not in (None, torch.float64):
        raise TypeError(f"x is float64 and the model {weights}: attack x.float(), or model.double()")
    return x.dtype
