"""A model as a list of layers: the frozen network that an attack runs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map_only

from bat_fast.attacks.engine.attacked_model import preserved_rng
from bat_fast.attacks.engine.fuse import Fusion
from bat_fast.attacks.engine.gradients import Gradients
from bat_fast.attacks.engine.names import Names, run
from bat_fast.attacks.engine.segment import SegmentLayer
from bat_fast.attacks.engine.trace import UnsuitableError


class Program:
    """Logits and the gradient at the pixels, with constant weights and nothing computed for them.

    Batch norm in eval mode is folded into the convolution before it, weights are cast and packed once per
    `refresh`, and what is known of the layers replaces autograd. Stretches without a layer of their own run
    under autograd (`SegmentLayer`).

    Args:
        graph: of the model, from `bat_fast.attacks.engine.trace`.
        model: its parameters and buffers are read at every `refresh`, and those of the stretches under
            autograd at every call.
        x: [N, C, H, W] images of the shape that the program is for.
        dtype: of convolutions and linear layers; None is that of their weights.

    Raises:
        UnsuitableError: a value of the graph is no tensor.
    """

    climb = small = None

    def __init__(self, graph: fx.Graph, model: nn.Module, x: Tensor, dtype: torch.dtype | None) -> None:
        names = Names(model)
        values: dict[fx.Node, Any] = {}
        with preserved_rng(x):
            nodes = list(graph.nodes)[:-1]
            last = {source: node for node in nodes for source in node.all_input_nodes}
            for node in nodes:
                args, kwargs = (fx.node.map_arg(a, values.__getitem__) for a in (node.args, node.kwargs))
                values[node] = x if node.op == "placeholder" else run(node, names, args, kwargs)
                for source in node.all_input_nodes:
                    if last[source] is node:  # all values at once would be twice what an attack needs
                        values[source] = tree_map_only(Tensor, _outline, values[source])
        fusion = Fusion(graph, names, values, dtype)
        self.layers = fusion.layers()
        self._attributes = [partial(names.attribute, str(n.target)) for n in nodes if n.op == "get_attr"]
        *_, output = graph.nodes
        if not isinstance(output.args[0], fx.Node) or not isinstance(values[output.args[0]], Tensor):
            raise UnsuitableError("it returns something else than a tensor")
        (images,) = [node for node in graph.nodes if node.op == "placeholder"]
        self.first, self.last = fusion.slots[images], fusion.slots[output.args[0]]
        self._count = len(fusion.nodes)
        crossing = [slot for layer in self.layers for slot in layer.sources]
        kinds = {fusion.slots[node]: value for node, value in values.items()}
        if any(isinstance(kinds[slot], (tuple, list, dict)) for slot in crossing):
            raise UnsuitableError("a tuple passes between two of its layers")
        self._free = self._last_uses()

    def addresses(self) -> tuple[int, ...]:
        """Of the tensors that it reads by name; a model may have some that are no parameters or buffers."""
        values = (read() for read in self._attributes)
        return tuple(value.data_ptr() for value in values if isinstance(value, Tensor))

    def refresh(self) -> None:
        """Take over the weights and running statistics as they are now."""
        for layer in self.layers:
            layer.refresh()

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of ``x`` [N, C, H, W]."""
        values: list[Any] = [None] * self._count
        values[self.first] = x
        with _without_autocast(x.device.type):
            for layer, done in zip(self.layers, self._free, strict=True):
                layer.forward(values)
                for slot in done:
                    values[slot] = None
        logits: Tensor = values[self.last]
        return logits

    def backward(self, grad: Tensor) -> Tensor:
        """Gradient [N, C, H, W] at the pixels, from ``grad`` [N, K] at the logits."""
        grads = Gradients(self._count)
        grads.add(self.last, grad, own=False)
        with _without_autocast(grad.device.type):
            for layer in reversed(self.layers):
                layer.backward(grads)
        result, _ = grads.take(self.first)
        assert result is not None
        return result

    def both(self, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N, K] of ``x``, and the gradient at it, where ``grad`` [N, K] is known beforehand."""
        logits = self.forward(x)
        return logits, self.backward(grad.to(logits.dtype))

    def __str__(self) -> str:
        """The kinds of its layers and how many there are."""
        names = [type(layer).__name__.removesuffix("Layer").lower() for layer in self.layers]
        kinds = [f"{names.count(name)} {name}" for name in dict.fromkeys(names)]
        nodes = sum(len(layer.nodes) for layer in self.layers if isinstance(layer, SegmentLayer))
        return ", ".join(kinds) + (f" ({nodes} operations under autograd)" if nodes else "")

    def _last_uses(self) -> list[list[int]]:
        """The values that nobody reads any more, per layer."""
        seen = {self.last}
        free: list[list[int]] = []
        for layer in reversed(self.layers):
            free.append([slot for slot in dict.fromkeys(layer.sources) if slot not in seen])
            seen.update(layer.sources)
        return free[::-1]


def _outline(value: Tensor) -> Tensor:
    """``value`` without its numbers."""
    if value.layout != torch.strided:
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def _without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Switch autocast off: the layers know their precision."""
    return (
        torch.autocast(device_type, enabled=False)
        if torch.is_autocast_enabled(device_type)
        else nullcontext()
    )
