"""The forward and backward pass of the weights in 16 bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


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

    def forward(
        self,
        x: Tensor,  # [N, C, H, W]
        **options: Any,
    ) -> Any:
        """What the model returns, in float32."""
        with torch.autocast(x.device.type, self._dtype):
            results = self._model[0](x, **options)
        return tuple(t.float() for t in results) if isinstance(results, tuple) else results.float()
