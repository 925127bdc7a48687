"""What an attack takes for a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel


class Function(nn.Module):
    """A function of images as a module. The modules that it uses are held still with it, as far as they are
    seen: that of a method, and those that the function names.

    Args:
        function: [N, C, H, W] pixels -> logits [N, K].
    """

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.used = nn.ModuleList(_used_by(function))

    def forward(self, x: Tensor) -> Any:
        """``function(x)``."""
        return self.function(x)


def _used_by(function: Any) -> list[nn.Module]:
    names = getattr(getattr(function, "__code__", None), "co_names", ())
    known = getattr(function, "__globals__", {})
    cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    found = [getattr(function, "__self__", None), *cells, *(known.get(name) for name in names)]
    return [value for value in found if isinstance(value, nn.Module)]


def as_module(model: nn.Module | Callable[[Tensor], Any]) -> nn.Module:
    """``model`` as a module: itself if it is one, and what it wraps if it is data-parallel.

    The module inside has the same weights, and an attack on it needs no communication: through
    DistributedDataParallel, each step would send the buffers of rank 0 over those of all others.

    Raises:
        TypeError: it cannot be called.
    """
    while isinstance(model, (DataParallel, DistributedDataParallel)):
        model = model.module
    if isinstance(model, nn.Module):
        return model
    if not callable(model):
        raise TypeError(
            f"model must be a torch.nn.Module or a function of images, got {type(model).__name__}"
        )
    return Function(model)
