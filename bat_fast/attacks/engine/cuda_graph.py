"""A whole attack as one CUDA graph: no launch waits for Python."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bat_fast.attacks.engine.attacked_model import preserved_rng
from bat_fast.attacks.engine.program import Program
from bat_fast.attacks.untouched import parts_of

Tensors = dict[str, Tensor | None]
_KEPT = 4  # graphs of an engine: full and last batches of training and evaluation
_SETTINGS = 2  # of them for tensors of one signature: radius or weights may change every epoch
_WARM_UP = 2  # runs before the capture: libraries choose algorithms and allocate workspaces


class GraphMemory:
    """What the graphs of one device share: a pool of memory, and the stream that they are captured on.

    Graphs replay one after another and leave nothing in the pool, so all may use the same blocks. A block
    serves one stream, hence one stream. torch gives a pool up with its last graph, and it cannot be used
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


class Graphs:
    """Captured loops; those used least recently make room for new ones.

    A copy starts empty: a graph belongs to the tensors that it was captured with.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[Hashable, ...], tuple[Program, Captured]] = {}
        self._refused: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()

    def __reduce__(self) -> tuple[type[Graphs], tuple[()]]:
        return Graphs, ()

    def run(self, loop: Callable[..., Any], network: Program, model: nn.Module, tensors: Tensors) -> None:
        """Replay ``loop(network, **tensors)``, after a capture where there is none.

        Every replay begins by taking over the weights, always: no counter would tell of those that changed
        through ``.data``, and the 167 kernels that it takes for ResNet-18 would cost the host 0.8 ms if they
        were launched one by one.

        Args:
            loop: equal loops share a graph, see `bat_fast.attacks.engine.Loop`.
            network: what the loop runs on.
            model: that ``network`` stands for.
            tensors: ``adv`` among them, which is moved.

        Raises:
            CaptureError: now or before on this model; ``tensors`` are as they were.
        """
        if model in self._refused:
            raise CaptureError(self._refused[model])
        key = (signature(tensors), loop, id(network), addresses(model), network.addresses())
        graph = self._kept.pop(key, None)
        if graph is None:
            try:
                graph = network, Captured(partial(_attack, loop, network), tensors, self._memory(tensors))
            except CaptureError as error:
                self._refused[model] = str(error)
                raise
        self._kept[key] = graph
        self._make_room(key[0])
        graph[1](tensors)

    def _memory(self, tensors: Tensors) -> GraphMemory | None:
        """The memory of the graphs on the device of ``tensors``."""
        adv = tensors["adv"]
        assert adv is not None
        memories = (captured.memory for _, captured in self._kept.values())
        return next((memory for memory in memories if memory.device == adv.device), None)

    def _make_room(self, alike: Hashable) -> None:
        """Forget graphs beyond those to keep, of the signature ``alike`` and in all.

        After a capture rather than before it: the pool lives as long as one graph does.
        """
        settings = [key for key in self._kept if key[0] == alike]
        for key in settings[:-_SETTINGS]:
            del self._kept[key]
        for key in list(self._kept)[:-_KEPT]:
            del self._kept[key]


class CaptureError(Exception):
    """A loop cannot be recorded as a CUDA graph; the message says why."""


def _attack(loop: Callable[..., Any], network: Program, **tensors: Tensor | None) -> None:
    network.refresh()
    loop(network, **tensors)


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


def addresses(model: nn.Module) -> tuple[int, ...]:
    """Addresses of the parameters and buffers of a model, which a captured graph reads there."""
    parts = parts_of(model)
    return tuple(t.data_ptr() for t in (*parts.parameters, *parts.buffers))
