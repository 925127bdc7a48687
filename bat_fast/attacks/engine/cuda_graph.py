"""A whole attack as one CUDA graph: no launch waits for Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bat_fast.attacks.engine.attacked_model import preserved_rng

Tensors = dict[str, Tensor | None]
_WARM_UP = 2  # runs before the capture: libraries choose algorithms and allocate workspaces


class GraphMemory:
    """What the graphs of one device share: a pool of memory, and the stream that they are captured on.

    Graphs replay one after another and leave nothing in the pool, so the next may use the same blocks. A block
    serves one stream only, hence one stream. torch gives a pool up with its last graph, and it cannot be used
    again: let it live as long as they do.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream(device)


class Captured:
    """``loop(**tensors)``, recorded once and replayed.

    The loop must change ``adv`` in place, read nothing on the host, and find what it reads beside its
    arguments where it was at the capture. Whatever fails here, ``tensors`` are as they were.

    Args:
        loop: what to record.
        tensors: arguments of the shapes, dtypes and layouts of every later call; not kept.
        memory: of the graphs beside this one; None makes some.

    Raises:
        CaptureError: the loop runs, and cannot be recorded.
    """

    def __init__(self, loop: Callable[..., Any], tensors: Tensors, memory: GraphMemory | None = None) -> None:
        self._static = {name: None if t is None else t.clone() for name, t in tensors.items()}
        adv = self._static["adv"]
        assert adv is not None
        device = adv.device
        with torch.cuda.device(device):
            self.memory = memory = GraphMemory(device) if memory is None else memory
            stream = memory.stream
            stream.wait_stream(torch.cuda.current_stream(device))
            # The warm-up leaves the random numbers of dropout to the replay.
            with torch.cuda.stream(stream), preserved_rng(adv):
                for _ in range(_WARM_UP):
                    loop(**self._static)
            torch.cuda.current_stream(device).wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            try:
                # Threads that load data may allocate and wait meanwhile.
                with torch.cuda.graph(
                    self._graph, pool=memory.pool, stream=stream, capture_error_mode="thread_local"
                ):
                    loop(**self._static)
            except Exception as error:
                raise CaptureError(_line(_first(error))) from error

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


class CaptureError(Exception):
    """A loop cannot be recorded as a CUDA graph; the message says why."""


def _first(error: BaseException) -> BaseException:
    """The error that ``error`` came after: the end of a broken capture raises one of its own."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"


def signature(tensors: Tensors) -> tuple[Any, ...]:
    """A key that is equal for tensors that one captured graph serves."""
    return tuple(
        (name, None if t is None else (t.shape, t.stride(), t.dtype, t.device)) for name, t in tensors.items()
    )


def addresses(model: torch.nn.Module) -> tuple[int, ...]:
    """Addresses of the parameters and buffers of a model, which a captured graph reads there."""
    return tuple(t.data_ptr() for group in (model.parameters(), model.buffers()) for t in group)
