"""Selection of the engine that runs an attack."""

from __future__ import annotations

import sys
import time
from collections.abc import Hashable
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from bat_fast.attacks.engine.attacked_model import AttackedModel, Plain
from bat_fast.attacks.engine.cuda_graph import CaptureError, Graphs, Tensors, signature
from bat_fast.attacks.engine.freeze import freezer_of, say_once
from bat_fast.attacks.engine.program import Program
from bat_fast.attacks.engine.trace import CompiledError, UnsuitableError
from bat_fast.attacks.precision import HALF, weights_dtype

ENGINES = ("auto", "eager", "frozen", "graph", "compile", "measure")


class Loop(Hashable, Protocol):
    """What an attack does with a network: ``loop(network, **tensors)`` changes ``adv`` in place.

    Loops that are equal do the same with the same network and tensors, so one captured graph serves them.
    Make a loop a frozen dataclass whose fields are all that it reads.
    """

    def __call__(self, *network: Any, **tensors: Any) -> None: ...


class Engine:
    """Runs the loop of an attack on the network that stands for a model, with the result of the plain one.

    Args:
        name: ``eager``: the model under autograd. ``frozen``: constant weights, folded, packed and without
            autograd; where the model cannot be taken apart, ``eager``, with one warning. ``graph``: the
            same, with all steps as one CUDA graph; on a CPU, or where the capture fails, ``frozen``, with one
            warning. ``compile``: ``torch.compile``. ``auto``: ``graph`` on a GPU and ``frozen`` on a CPU, as
            far as the model allows; it does not depend on timings, so that a run can be repeated bit for
            bit. ``measure``: the fastest of those that need no compiler, timed on the first batch of each
            shape; prints what it found.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._chosen: dict[Hashable, str] = {}
        self._graphs = Graphs()
        self._compiled: tuple[nn.Module, nn.Module] | None = None

    def run(
        self,
        loop: Loop,
        model: nn.Module,
        dtype: torch.dtype | None,
        tensors: dict[str, Tensor | None],
    ) -> None:
        """Call ``loop(network, **tensors)``, which changes ``adv`` in place.

        Args:
            loop: what an attack does with a network.
            model: to attack, already in `bat_fast.attacks.untouched`.
            dtype: precision of the network; None is the one of its weights, or of the autocast around.
            tensors: ``adv`` among them.
        """
        name = self.name
        if name == "measure":
            name = self._fastest(loop, model, dtype, tensors)
        self._run(name, loop, model, dtype, tensors)

    def _run(
        self,
        name: str,
        loop: Loop,
        model: nn.Module,
        dtype: torch.dtype | None,
        tensors: Tensors,
    ) -> None:
        x = tensors["adv"]
        assert x is not None
        network = self._network(name, model, x, dtype)
        if name == "graph" and not x.is_cuda:
            say_once(model, "CUDA graphs need a GPU; the steps run one by one", "captured")
        if name in ("auto", "graph") and x.is_cuda and isinstance(network, Program):
            try:
                self._graphs.run(loop, network, model, tensors)
                return
            except CaptureError as error:
                say_once(model, str(error), "captured")
        network.refresh()
        loop(network, **tensors)

    def _network(self, name: str, model: nn.Module, x: Tensor, dtype: torch.dtype | None) -> AttackedModel:
        weights = weights_dtype(model)
        if weights in HALF:
            dtype = dtype or weights
        if name == "eager":
            return Plain(model, dtype)
        if name == "compile":
            if self._compiled is None or self._compiled[0] is not model:
                self._compiled = model, cast(nn.Module, torch.compile(model))
            return Plain(self._compiled[1], dtype)
        if weights in HALF:
            say_once(model, f"its weights are {weights}; with float32 weights and a precision it is faster")
            return Plain(model, dtype)
        try:
            return freezer_of(model).program(model, x, _precision(x.device.type, dtype))
        except UnsuitableError as error:
            if name != "auto" or not isinstance(error, CompiledError):
                say_once(model, str(error))
            return Plain(model, dtype)

    def _fastest(
        self,
        loop: Loop,
        model: nn.Module,
        dtype: torch.dtype | None,
        tensors: Tensors,
    ) -> str:
        """The engine that was fastest on the first batch like this one."""
        key = (loop, dtype, signature(tensors))
        if key not in self._chosen:
            x = tensors["adv"]
            assert x is not None
            times = {}
            for name in ("eager", "frozen", *(("graph",) if x.is_cuda else ())):
                for _ in range(2):  # the first call builds and captures
                    copies = {k: None if t is None else t.clone() for k, t in tensors.items()}
                    _wait(x)
                    begin = time.perf_counter()
                    self._run(name, loop, model, dtype, copies)
                    _wait(x)
                    times[name] = 1e3 * (time.perf_counter() - begin)
            best = self._chosen[key] = min(times, key=times.__getitem__)
            rows = ", ".join(f"{name} {ms:.1f} ms" for name, ms in times.items())
            print(f"bat_fast: attack on {list(x.shape)}: {rows}; takes {best}", file=sys.stderr)
        return self._chosen[key]


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


def _precision(device_type: str, dtype: torch.dtype | None) -> torch.dtype | None:
    """The precision ``dtype`` of the attack; where that is None, the one of the autocast around it."""
    if dtype is None and torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return dtype
