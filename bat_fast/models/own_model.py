"""A model class of one's own, by the name of its module or the path of its file."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from bat_fast.models.activation import replace_relu
from bat_fast.models.base import Classifier, Spec

NAMES = ("MODULE:CLASS", "FILE.py:CLASS")
PATTERN = re.compile(r"(?!timm:)(.+\.py|[a-z_]\w*(?:\.[a-z_]\w*)*):([a-z_]\w*)")
TAKES_OPTIONS = True

# What a constructor may call it, and what it is told where it asks.
_ASKED = {
    "num_classes": ("num_classes", "n_classes", "classes"),
    "in_channels": ("in_channels", "in_chans", "channels"),
    "image_size": ("image_size", "img_size"),
}


class OwnModel(Classifier):
    """A module of somebody else's behind the interface of this project.

    Pixels are normalised before it. Its logits are what it returns: a tensor, the first of a tuple, or what a
    dictionary or an object calls ``logits``. Its features are the input of its last linear layer, where
    that gives the logits; otherwise it has none.

    Args:
        name: as the user has it, for messages.
        net: takes normalised images [N, C, H, W].
        spec: classes, channels, image size, activation and normalisation.

    Raises:
        ValueError: it does not give ``spec.num_classes`` logits for such images, or has no ReLU that the
            activation could replace.
    """

    def __init__(self, name: str, net: nn.Module, spec: Spec) -> None:
        if spec.activation.lower() != "relu" and not replace_relu(net, spec.activation):
            raise ValueError(
                f"activation: {name} has no nn.ReLU that {spec.activation} could replace; set it to relu"
            )
        size = 32 if spec.image_size is None else spec.image_size
        x = torch.rand(2, spec.in_channels, size, size, generator=torch.Generator().manual_seed(0))
        with _judged(net):
            result = _answer(name, net, x)
            kind = _kind(name, result)
            logits = _taken(result, kind)
            if logits.shape != (2, spec.num_classes):
                raise ValueError(
                    f"model.name: {name} gives {list(logits.shape)} for 2 images of {spec.num_classes} "
                    f"classes, [2, {spec.num_classes}] is wanted: tell it their number in model.options"
                )
            head = _split_head(net, x, kind, logits)
        super().__init__(spec, feature_dim=0 if head is None else head.in_features)
        self.net, self._name, self._kind = net, name, kind
        self.has_features = head is not None
        self.head = nn.Identity() if head is None else head

    def embed(self, x: Tensor) -> Tensor:
        """The features [N, D] of normalised images ``x`` [N, C, H, W]; the logits where there are none."""
        return _taken(self.net(x), self._kind)

    @overload
    def forward(self, x: Tensor, return_features: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, return_features: Literal[True]) -> tuple[Tensor, Tensor]: ...
    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """As `Classifier.forward`.

        Raises:
            ValueError: features are asked for, and there are none.
        """
        if return_features and not self.has_features:
            raise ValueError(
                f"{self._name} does not end in one nn.Linear, so it has no features: set method.beta to 0, "
                "or let the class return logits that its last nn.Linear computes"
            )
        features = self.features(x)
        logits = self.classify(features)
        return (logits, features) if return_features else logits


@contextmanager
def _judged(net: nn.Module) -> Iterator[None]:
    """In eval mode, without gradients; modes are restored."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _answer(name: str, net: nn.Module, x: Tensor) -> Any:
    try:
        return net(x)
    except Exception as error:
        raise ValueError(
            f"model.name: {name} fails on images {list(x.shape)}: {type(error).__name__}: {error}"
        ) from error


def _kind(name: str, result: Any) -> str:
    """How logits lie in what a model returns; decided once, so that tracing has nothing to decide."""
    if isinstance(result, Tensor):
        return "tensor"
    if isinstance(result, Mapping) and isinstance(result.get("logits"), Tensor):
        return "key"
    if isinstance(getattr(result, "logits", None), Tensor):
        return "attribute"
    if isinstance(result, (tuple, list)) and result and isinstance(result[0], Tensor):
        return "first"
    raise ValueError(
        f"model.name: {name} returns {type(result).__name__}; a tensor is wanted, a tuple that begins with "
        "one, or logits by name"
    )


def _taken(result: Any, kind: str) -> Tensor:
    found: Tensor = (
        result if kind == "tensor" else result["logits"] if kind == "key"
        else result.logits if kind == "attribute" else result[0]
    )  # fmt: skip
    return found


def _split_head(net: nn.Module, x: Tensor, kind: str, logits: Tensor) -> nn.Linear | None:
    """Take the last linear layer out of ``net``, where it alone makes logits of features."""
    linear = [(path, part) for path, part in net.named_modules() if isinstance(part, nn.Linear)]
    if not linear or not linear[-1][0]:
        return None
    path, head = linear[-1]
    parent, _, last = path.rpartition(".")
    owner = net.get_submodule(parent)
    setattr(owner, last, nn.Identity())
    try:
        features = _taken(net(x), kind)
        if features.dim() == 2 and torch.allclose(head(features), logits, rtol=1e-4, atol=1e-5):
            return head
    except Exception:
        pass  # whatever reads the layer itself, its weight say, needs it where it is
    setattr(owner, last, head)
    return None


def located(name: str) -> str:
    """``name`` with the path of a file made absolute, so that it is found from anywhere."""
    file, colon, kind = name.rpartition(":")
    return f"{Path(file).resolve()}{colon}{kind}" if file.endswith(".py") else name


def _module(place: str) -> ModuleType:
    if place.endswith(".py"):
        file = Path(place).resolve()
        if not file.is_file():
            raise ValueError(f"model.name: there is no file {file}, which holds the class of the model")
        unique = f"_bat_fast_model_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
        spec = importlib.util.spec_from_file_location(unique, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[unique] = module  # pickling and dataclasses look their module up
        spec.loader.exec_module(module)
        return module
    here = str(Path.cwd())  # where the user's own modules lie; a console script does not look there
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        return import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not place.startswith(error.name):
            raise
        raise ValueError(
            f"model.name: there is no module {place!r}, neither installed nor in {here}; a file is named "
            "path/to/file.py:Class"
        ) from None
    finally:
        if added:
            sys.path.remove(here)


def _class(place: str, wanted: str) -> type[nn.Module]:
    module = _module(place)
    found = getattr(module, wanted, None)
    # Modules alone: the name may come from a file of somebody else's, and must not call just anything.
    if isinstance(found, type) and issubclass(found, nn.Module):
        return found
    there = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module.__name__
    ]
    what = "has no" if found is None else "has something else named"
    raise ValueError(
        f"model.name: {place} {what} {wanted!r}; its model classes: {', '.join(there) or 'none'}"
    )


def build(match: re.Match[str], spec: Spec) -> OwnModel:
    """``MODULE:CLASS`` or ``FILE.py:CLASS``, called with ``spec.options`` and what its parameters ask for."""
    name, kind = match[0], _class(match[1], match[2])
    parameters = inspect.signature(kind).parameters
    told = {
        asked: getattr(spec, what)
        for what, words in _ASKED.items()
        for asked in words
        if asked in parameters and getattr(spec, what) is not None
    }
    try:
        net = kind(**(told | dict(spec.options)))
    except TypeError as error:
        raise ValueError(f"model.options: {name} cannot be made: {error}") from error
    return OwnModel(name, net, spec)
