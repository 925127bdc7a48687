"""The names in a traced graph, looked up in the model."""

from __future__ import annotations

import weakref
from typing import Any

from torch import fx, nn


class Names:
    """Looks up what the nodes of a graph refer to, without keeping the model alive."""

    def __init__(self, model: nn.Module) -> None:
        self._model = weakref.ref(model)

    def get_submodule(self, path: str) -> nn.Module:
        """The module at ``model.PATH``."""
        return self._living().get_submodule(path.removeprefix("model."))

    def attribute(self, path: str) -> Any:
        """The tensor, or whatever it is, at ``model.PATH``."""
        value: Any = self._living()
        for name in path.removeprefix("model.").split("."):
            value = getattr(value, name)
        return value

    def _living(self) -> nn.Module:
        model = self._model()
        if model is None:
            raise ReferenceError("the attacked model is gone")
        return model


def run(node: fx.Node, names: Names, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Compute one ``node`` of a graph from the values of its arguments."""
    if node.op == "call_module":
        return names.get_submodule(str(node.target))(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    if node.op == "get_attr":
        return names.attribute(str(node.target))
    assert callable(node.target)
    return node.target(*args, **kwargs)
