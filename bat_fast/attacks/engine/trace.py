"""Tracing: the graph of what a model computes for images of one shape."""

from __future__ import annotations

import operator
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from bat_fast._logits import logits_of
from bat_fast.attacks.engine.attacked_model import preserved_rng
from bat_fast.attacks.engine.names import Names, run


class UnsuitableError(Exception):
    """The model cannot be taken apart; the message says why."""


class CompiledError(UnsuitableError):
    """The user has chosen how the model runs."""


def trace(model: nn.Module, x: Tensor) -> fx.Graph:
    """The graph of ``model(x)`` in its current modes.

    Modules that cannot be followed stay whole. Decisions that the model takes by shapes, devices and dtypes
    are taken as for ``x``; one that it takes by the values of a tensor keeps its module whole.

    Args:
        model: not changed, but for the buffers that a forward pass in train mode moves.
        x: [N, C, H, W] images.

    Raises:
        UnsuitableError: hooks, wrappers of torch, or a ``forward`` that cannot be followed.
    """
    if type(model).__module__.startswith("torch._dynamo"):
        raise CompiledError("it is compiled already")
    if type(model).__module__.startswith("torch.nn.parallel"):
        raise UnsuitableError("it is a wrapper: attack the module inside (ddp.module)")
    for name, part in model.named_modules():
        if hooked(part):
            raise UnsuitableError(f"{name or type(model).__name__} has hooks")
    root, names = _Root(model), Names(model)
    tracer = _Tracer(names, x)
    with preserved_rng(x), torch.no_grad():
        graph = tracer.trace(root)
    if any(node.op == "call_module" and node.target == "model" for node in graph.nodes):
        raise UnsuitableError(f"its forward cannot be followed: {_line(tracer.why)}") from tracer.why
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in ("output", "placeholder") and not in_place(node, names):
            graph.erase_node(node)
    _resolve_writes(graph, names)
    _remove_idle(graph, names)
    return graph


def in_place(node: fx.Node, names: Names) -> bool:
    """Whether a node writes into its first argument."""
    if node.op == "call_module":
        return bool(getattr(names.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_function" and node.kwargs.get("inplace", False):
        return True
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return node.op.startswith("call_") and (
        (name.endswith("_") and not name.endswith("__")) or getattr(operator, name, None) in _WRITING
    )


def _resolve_writes(graph: fx.Graph, names: Names) -> None:
    """Let nodes that read a value after it was written over read what was written."""
    for node in graph.nodes:
        if in_place(node, names) and node.args and isinstance(node.args[0], fx.Node):
            order = {n: i for i, n in enumerate(graph.nodes)}
            written = node.args[0]
            written.replace_all_uses_with(node, delete_user_cb=partial(_later, order, order[node]))


def _later(order: dict[fx.Node, int], position: int, node: fx.Node) -> bool:
    return order[node] > position


def _remove_idle(graph: fx.Graph, names: Names) -> None:
    """Remove nodes that return their input: identities, and dropout in eval mode."""
    for node in list(graph.nodes):
        if node.op == "call_module" and isinstance(node.args[0], fx.Node):
            module = names.get_submodule(str(node.target))
            if type(module) is nn.Identity or (type(module) in _DROPOUT and not module.training):
                node.replace_all_uses_with(node.args[0])
                graph.erase_node(node)


_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)
_WRITING = (operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.setitem)


def hooked(module: nn.Module) -> bool:
    """Whether code that is not in ``forward`` runs with the module."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


class _Root(nn.Module):
    """``model`` as a module of its own graph, called with the images alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        """The logits of ``model(x)``."""
        return logits_of(self.model(x))


class _Tracer(fx.Tracer):
    def __init__(self, names: Names, x: Tensor) -> None:
        super().__init__()
        self.names = names
        self.values: dict[fx.Node, Any] = {}
        self.x = x
        self.evaluating = False
        self.why: Exception = RuntimeError()  # the last module could not be followed

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if self.evaluating:
            return forward(*args, **kwargs)
        known, stack = len(self.graph.nodes), self.module_stack.copy()
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception as error:  # the module as a whole does better, or raises the same at run time
            self.why, self.module_stack = error, stack
            for node in reversed(list(self.graph.nodes)[known:]):
                self.values.pop(node, None)
                self.graph.erase_node(node)
            return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self.evaluating else super().getattr(attr, attr_val, parameter_proxy_cache)

    def to_bool(self, obj: fx.Proxy) -> bool:
        self.evaluating = True  # fx has its hands on every module while it traces
        try:
            value = self._value(obj.node)
        finally:
            self.evaluating = False
        if isinstance(value, Tensor):
            raise fx.proxy.TraceError("control flow by the values of a tensor")
        return bool(value)

    def _value(self, wanted: fx.Node) -> Any:
        """The value that a node of the graph so far has for the example."""
        for node in self.graph.nodes:
            if node not in self.values:
                args = fx.node.map_arg(node.args, self.values.__getitem__)
                kwargs = fx.node.map_arg(node.kwargs, self.values.__getitem__)
                self.values[node] = (
                    self.x if node.op == "placeholder" else run(node, self.names, args, kwargs)
                )
            if node is wanted:
                break
        return self.values[wanted]


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"
