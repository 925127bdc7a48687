"""Fusion: makes layers of the graph of a model, and decides what is folded, fused, or left as it is."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from bat_fast.attacks.engine import pointwise
from bat_fast.attacks.engine.arrange import arranged
from bat_fast.attacks.engine.convolution import Convolution
from bat_fast.attacks.engine.layers import (
    ActivationLayer,
    ConstantLayer,
    ConvLayer,
    FlattenLayer,
    Layer,
    LinearLayer,
    MaxPoolLayer,
    MeanLayer,
    SumLayer,
)
from bat_fast.attacks.engine.names import Names
from bat_fast.attacks.engine.norms import AffineLayer, BatchNormLayer
from bat_fast.attacks.engine.segment import SegmentLayer
from bat_fast.attacks.engine.weights import Weights, packs

ARITHMETIC = {
    operator.add: operator.add, operator.iadd: operator.add, torch.add: operator.add,
    operator.sub: operator.sub, operator.isub: operator.sub, torch.sub: operator.sub,
    operator.mul: operator.mul, operator.imul: operator.mul, torch.mul: operator.mul,
    operator.truediv: operator.truediv, operator.itruediv: operator.truediv, torch.div: operator.truediv,
}  # fmt: skip
"""Functions of two arguments and what they compute, in place or not."""


class Fusion:
    """Reads the graph of a model in order and makes layers of it.

    Args:
        graph: of `bat_fast.attacks.engine.trace`.
        names: what its names refer to.
        values: what each node holds for the images at hand; for their shapes.
        dtype: precision of convolutions and linear layers; None is that of their weights.
    """

    def __init__(
        self, graph: fx.Graph, names: Names, values: dict[fx.Node, Any], dtype: torch.dtype | None
    ) -> None:
        self.names, self.values, self.dtype = names, values, dtype
        (images,) = [value for node, value in values.items() if node.op == "placeholder"]
        self.packed = packs(images, images.dtype if dtype is None else dtype)
        self.nodes = list(graph.nodes)
        self.slots: dict[fx.Node, int] = {node: i for i, node in enumerate(self.nodes)}
        self.taken: set[fx.Node] = set()  # part of a layer that began at an earlier node
        self.made: dict[fx.Node, Layer] = {}  # by the last node of the layer

    def layers(self) -> list[Layer]:
        """All layers, in an order in which they can run."""
        result: list[Layer] = []
        stretch: list[fx.Node] = []
        for node in self.nodes:
            if node.op in ("placeholder", "output") or node in self.made:
                pass
            elif node not in self.taken:
                self._begin(node)
        for node in self.nodes:
            if node in self.made:
                self._flush(stretch, result)
                result.append(self.made[node])
            elif node.op.startswith("call_") and node not in self.taken:
                stretch.append(node)
        self._flush(stretch, result)
        return arranged(result)

    def _flush(self, stretch: list[fx.Node], result: list[Layer]) -> None:
        if stretch:
            # Attributes are read in every stretch that needs them.
            needed = dict.fromkeys(a for n in stretch for a in n.all_input_nodes if a.op == "get_attr")
            result.append(SegmentLayer([*needed, *stretch], self.names, self.slots, self.values, self.dtype))
            stretch.clear()

    def _begin(self, node: fx.Node) -> None:
        """Make the layer that starts at a node, if there is one."""
        if not node.args or not isinstance(node.args[0], fx.Node) or not self._is_image(node):
            return
        module = self._module(node)
        norm = self._norm(node)
        act = pointwise.of(node, self.names)
        if type(module) is nn.Conv2d and module.padding_mode == "zeros" and _symmetric(module):
            self._convolution(node, module)
        elif type(module) is nn.Linear:
            after, last = self._activation(node)
            self._make(LinearLayer(Weights(module, None, self.dtype), after), last, [node.args[0]], node)
        elif norm is not None:
            after, last = self._activation(node)
            layer = BatchNormLayer(norm, after) if norm.training else AffineLayer(norm, after, self.packed)
            self._make(layer, last, [node.args[0]], node)
        elif act is not None:
            self._make(ActivationLayer(act), node, [node.args[0]])
        elif isinstance(module, nn.MaxPool2d):
            self._make(MaxPoolLayer(module), node, [node.args[0]])
        elif self._is_mean(node, module):
            self._make(MeanLayer(keepdim=self.values[node].dim() == 4), node, [node.args[0]])
        elif isinstance(module, nn.Flatten) or (node.target in ("flatten", torch.flatten)):
            if self.values[node].dim() == 2:
                self._make(FlattenLayer(), node, [node.args[0]])
        elif ARITHMETIC.get(node.target) and len(node.args) == 2 and not node.kwargs:  # type: ignore[arg-type]
            self._arithmetic(node)

    def _convolution(self, node: fx.Node, module: nn.Conv2d) -> None:
        """Make a layer of a convolution, the batch norm after it, the sum after that, and the activation."""
        last, norm, other = node, None, None
        follower = self._only_user(last)
        if follower is not None and (found := self._norm(follower)) is not None and not found.training:
            norm, last = found, follower
        follower = self._only_user(last)
        if follower is not None and self._is_sum(follower) and follower not in self.taken:
            (other,) = [arg for arg in follower.args if arg is not last]
            last = follower
        act, last = self._activation(last)
        image = node.args[0]
        conv = Convolution(Weights(module, norm, self.dtype), tuple(self.values[image].shape))  # type: ignore[index]
        layer = ConvLayer(conv, act, None if other is None else self.slots[other])  # type: ignore[index]
        self._make(layer, last, [image] if other is None else [image, other], node)

    def _arithmetic(self, node: fx.Node) -> None:
        left, right = node.args
        function = ARITHMETIC[node.target]  # type: ignore[index]
        if self._is_sum(node):
            act, last = self._activation(node)
            self._make(SumLayer(act), last, [left, right], node)
            return
        constant: Any = right
        if isinstance(right, fx.Node):
            if right.op != "get_attr":
                return
            path, names = str(right.target), self.names
            self._make(ConstantLayer(function, lambda: names.attribute(path)), node, [left])
        elif isinstance(right, (int, float)):
            self._make(ConstantLayer(function, lambda: constant), node, [left])

    def _make(self, layer: Layer, last: fx.Node, sources: list[Any], first: fx.Node | None = None) -> None:
        layer.sources, layer.target = tuple(self.slots[source] for source in sources), self.slots[last]
        self.made[last] = layer
        node = last if first is None else first
        while node is not last:  # the chain of only users from the first to the last
            self.taken.add(node)
            (node,) = node.users
        self.taken.add(last)

    def _activation(self, node: fx.Node) -> tuple[pointwise.Pointwise | None, fx.Node]:
        """The activation that follows a node that nobody else reads, and the node that the layer ends at."""
        follower = self._only_user(node)
        act = None if follower is None else pointwise.of(follower, self.names)
        return (act, follower) if act is not None and follower is not None else (None, node)

    def _only_user(self, node: fx.Node) -> fx.Node | None:
        return next(iter(node.users)) if len(node.users) == 1 else None

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self.names.get_submodule(str(node.target)) if node.op == "call_module" else None

    def _norm(self, node: fx.Node) -> Any:
        module = self._module(node)
        if type(module) is nn.BatchNorm2d:
            usable = module.training or module.running_mean is not None
            return module if usable else None
        if node.target is F.batch_norm:
            return FunctionalNorm.of(node, self.names)
        return None

    def _is_image(self, node: fx.Node) -> bool:
        value, source = self.values[node], self.values[node.args[0]]  # type: ignore[index]
        return all(isinstance(v, Tensor) and v.is_floating_point() for v in (value, source))

    def _is_sum(self, node: fx.Node) -> bool:
        args = [arg for arg in node.args if isinstance(arg, fx.Node)]
        if ARITHMETIC.get(node.target) is not operator.add or len(args) != 2 or node.kwargs:  # type: ignore[arg-type]
            return False
        shapes = [getattr(self.values[arg], "shape", None) for arg in args]
        return args[0] is not args[1] and shapes[0] == shapes[1] and all(a.op != "get_attr" for a in args)

    def _is_mean(self, node: fx.Node, module: nn.Module | None) -> bool:
        if self.values[node.args[0]].dim() != 4:  # type: ignore[index]
            return False
        if isinstance(module, nn.AdaptiveAvgPool2d):
            return module.output_size in (1, (1, 1))
        dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        return node.target in ("mean", torch.mean) and tuple(dims or ()) in ((2, 3), (-2, -1))  # type: ignore[arg-type]


class FunctionalNorm:
    """A call of ``batch_norm`` with tensors of the model, seen as the module it came from."""

    def __init__(self, names: Names, paths: dict[str, str | None], training: bool, eps: float) -> None:
        self._names, self._paths, self.training, self.eps = names, paths, training, eps

    @classmethod
    def of(cls, node: fx.Node, names: Names) -> FunctionalNorm | None:
        """The norm that ``node`` calls; None where its tensors are not attributes of the model."""
        order = ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
        given = dict(zip(order, node.args[1:], strict=False)) | dict(node.kwargs)
        paths = {}
        for name in order[:4]:
            value = given.get(name)
            if value is not None and (not isinstance(value, fx.Node) or value.op != "get_attr"):
                return None
            paths[name] = None if value is None else str(value.target)
        training = bool(given.get("training", False))
        usable = training or paths["running_mean"] is not None
        return cls(names, paths, training, float(given.get("eps", 1e-5))) if usable else None  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._paths:
            raise AttributeError(name)
        path = self._paths[name]
        return None if path is None else self._names.attribute(path)


def _symmetric(conv: nn.Conv2d) -> bool:
    """Whether both sides are padded alike; ``same`` of an even window pads one side more."""
    spans = [(k - 1) * d for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
    return conv.padding != "same" or all(span % 2 == 0 for span in spans)
