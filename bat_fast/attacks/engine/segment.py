"""A stretch of a model that the engine has no layer for: it runs as it is, under autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from bat_fast.attacks.engine.attacked_model import autocast
from bat_fast.attacks.engine.gradients import Gradients
from bat_fast.attacks.engine.layers import Layer, Values
from bat_fast.attacks.engine.names import Names, run
from bat_fast.attacks.engine.trace import in_place


class SegmentLayer(Layer):
    """Consecutive nodes of the graph of a model, with any number of inputs and outputs.

    Args:
        nodes: in order.
        names: looks up modules and attributes of the model.
        slots: where values lie.
        values: what the nodes hold when the model runs as it is.
        dtype: autocast, or None.
    """

    def __init__(
        self,
        nodes: list[fx.Node],
        names: Names,
        slots: dict[fx.Node, int],
        values: dict[fx.Node, Any],
        dtype: torch.dtype | None,
    ) -> None:
        inside = set(nodes)
        self.nodes, self.names, self.dtype = nodes, names, dtype
        self.inputs = list(
            dict.fromkeys(arg for node in nodes for arg in node.all_input_nodes if arg not in inside)
        )
        self.outputs = [
            node for node in nodes if node.op != "get_attr" and any(user not in inside for user in node.users)
        ]
        self.sources = tuple(slots[node] for node in self.inputs)
        self._targets = tuple(slots[node] for node in self.outputs)
        # A leaf of autograd cannot be written over, and what others read must not be.
        self._copied = {
            arg for node in nodes if in_place(node, names) for arg in node.all_input_nodes
        } - inside
        # Dropout draws in the order of memory, so it gets the order of the model.
        self._ordered = {
            node: values[node].is_contiguous()
            for node in self.inputs
            if any("drop" in str(inner.target).lower() or self._drops(inner) for inner in nodes)
        }

    @property
    def targets(self) -> tuple[int, ...]:
        return self._targets

    def forward(self, values: Values) -> None:
        held: dict[fx.Node, Any] = {}
        self._leaves: list[tuple[int, Tensor]] = []
        device = "cpu"
        with torch.enable_grad():
            for node, slot in zip(self.inputs, self.sources, strict=True):
                value = held[node] = values[slot]
                if isinstance(value, Tensor) and value.is_floating_point():
                    if self._ordered.get(node, False):
                        value = value.contiguous()
                    leaf = value.detach().requires_grad_()
                    self._leaves.append((slot, leaf))
                    held[node], device = (leaf.clone() if node in self._copied else leaf), value.device.type
            with autocast(device, self.dtype):
                for node in self.nodes:
                    args = fx.node.map_arg(node.args, held.__getitem__)
                    kwargs = fx.node.map_arg(node.kwargs, held.__getitem__)
                    held[node] = run(node, self.names, args, kwargs)
        self._results = [held[node] for node in self.outputs]
        for slot, result in zip(self.targets, self._results, strict=True):
            values[slot] = result.detach() if isinstance(result, Tensor) else result

    def backward(self, grads: Gradients) -> None:
        results, leaves = self._results, self._leaves
        del self._results, self._leaves
        arrived = [grads.take(slot)[0] for slot in self.targets]
        pairs = [
            (result, grad.to(result.dtype))
            for result, grad in zip(results, arrived, strict=True)
            if grad is not None and result.requires_grad
        ]
        if not pairs or not leaves:
            return
        outputs, weights = zip(*pairs, strict=True)
        passed = torch.autograd.grad(outputs, [leaf for _, leaf in leaves], weights, allow_unused=True)
        for (slot, _), grad in zip(leaves, passed, strict=True):
            if grad is not None:
                grads.add(slot, grad, own=False)

    def _drops(self, node: fx.Node) -> bool:
        module = self.names.get_submodule(str(node.target)) if node.op == "call_module" else None
        return module is not None and any("drop" in type(m).__name__.lower() for m in module.modules())

    def keeps(self) -> tuple[int, ...]:
        return self.sources
