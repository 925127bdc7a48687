"""A whole attack as one CUDA graph: no launch waits for Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor | None]
_WARM_UP = 2  # runs before the capture: libraries choose algorithms and allocate workspaces


class Captured:
    """``loop(**tensors)``, recorded once and replayed.

    The loop must change ``adv`` in place, read nothing on the host, and find what it reads beside its
    arguments where it was at the capture.

    Args:
        loop: what to record.
        tensors: arguments of the shapes, dtypes and layouts of every later call; not kept.
    """

    def __init__(self, loop: Callable[..., Any], tensors: Tensors) -> None:
        self._static = {name: None if t is None else t.clone() for name, t in tensors.items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                loop(**self._static)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            loop(**self._static)

    def __call__(self, tensors: Tensors) -> None:
        """Run the loop on ``tensors``, of which it changes ``adv``."""
        for name, static in self._static.items():
            value = tensors[name]
            if static is not None and value is not None:
                static.copy_(value)
        self._graph.replay()
        adv, moved = tensors["adv"], self._static["adv"]
        assert adv is not None
        assert moved is not None
        adv.copy_(moved)


def signature(tensors: Tensors) -> tuple[Any, ...]:
    """A key that is equal for tensors that one captured graph serves."""
    return tuple(
        (name, None if t is None else (t.shape, t.stride(), t.dtype, t.device)) for name, t in tensors.items()
    )


def addresses(model: torch.nn.Module) -> tuple[int, ...]:
    """Addresses of the parameters and buffers of a model, which a captured graph reads there."""
    return tuple(t.data_ptr() for group in (model.parameters(), model.buffers()) for t in group)
