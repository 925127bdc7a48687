"""Any module of torch that gives logits, behind the interface of this project."""

from __future__ import annotations

import copy
import inspect
import re
from dataclasses import replace
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from bat_fast._logits import eval_mode, kind_of, logits_of, taken
from bat_fast.models.activation import replace_relu
from bat_fast.models.base import Classifier, Spec
from bat_fast.models.model_class import model_class

NAMES = ("MODULE:CLASS", "FILE.py:CLASS")
PATTERN = re.compile(r"(?!timm:|torchvision:)(.+\.py|[a-z_]\w*(?:\.[a-z_]\w*)*):([a-z_]\w*)")
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
        x = _images_for(net, spec)
        with eval_mode(net), torch.no_grad():
            result = _answer(name, net, x)
            kind = kind_of(result)
            logits = taken(result, kind)
            if logits.shape != (2, spec.num_classes):
                raise ValueError(
                    f"model.name: {name} gives {list(logits.shape)} for 2 images of {spec.num_classes} "
                    f"classes, [2, {spec.num_classes}] is wanted: tell it their number in model.options"
                )
            body, place, head = _split_head(net, x, kind, logits)
        super().__init__(spec, feature_dim=0 if head is None else head.in_features)
        self.net, self._name, self._kind = body, name, kind
        self.has_features = head is not None
        self.head = nn.Identity() if head is None else head
        self._head_place = place

    def embed(self, x: Tensor) -> Tensor:
        """The features [N, D] of normalised images ``x`` [N, C, H, W]; the logits where there are none."""
        return taken(self.net(x), self._kind)

    def renamed(self, name: str) -> str:
        """What a weight of the module is called here: its last linear layer is kept apart."""
        head = self.has_features and name.startswith(f"{self._head_place}.")
        return f"head.{name[len(self._head_place) + 1 :]}" if head else f"net.{name}"

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


def wrap(net: nn.Module, spec: Spec | Tensor) -> Classifier:
    """``net`` as a `Classifier`: itself if it is one. What is trained then are the weights of ``net``.

    ``models.wrap(net, x)``, with any batch of images ``x``, is enough for a loop of one's own: it finds the
    features that `bat_fast.methods.bat` asks for.

    Args:
        net: takes pixels in [0, 1], [N, C, H, W], and returns logits in one of the ways of `OwnModel`.
        spec: of the images; it does not normalise. Or some images, of which the size alone matters.

    Raises:
        ValueError: ``net`` does not give logits for such images, or not ``spec.num_classes`` of them.
        TypeError: it is no module.
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(net).__name__}")
    if isinstance(net, Classifier):
        if isinstance(spec, Spec) and net.num_classes < spec.num_classes:
            raise ValueError(f"model has {net.num_classes} logits for {spec.num_classes} classes")
        return net
    name = type(net).__name__
    return OwnModel(name, net, spec if isinstance(spec, Spec) else _spec_for(name, net, spec))


def _spec_for(name: str, net: nn.Module, x: Tensor) -> Spec:
    """What ``net`` is, by its answer to images of the size of ``x``."""
    if x.dim() != 4 or x.shape[2] != x.shape[3]:
        raise ValueError(
            f"spec must be images [N, C, H, W] with H = W, or a bat_fast.models.Spec, got {list(x.shape)}"
        )
    spec = Spec(num_classes=1, in_channels=x.shape[1], image_size=x.shape[3])
    images = _images_for(net, spec)
    with eval_mode(net), torch.no_grad():
        logits = logits_of(_answer(name, net, images), len(images))
    return replace(spec, num_classes=logits.shape[1])


def _images_for(net: nn.Module, spec: Spec) -> Tensor:
    """Two random images as ``net`` takes them."""
    size = 32 if spec.image_size is None else spec.image_size
    x = torch.rand(2, spec.in_channels, size, size, generator=torch.Generator().manual_seed(0))
    weights = next((weight for weight in net.parameters() if weight.is_floating_point()), x)
    return x.to(weights)


def _answer(name: str, net: nn.Module, x: Tensor) -> Any:
    try:
        return net(x)
    except Exception as error:
        raise ValueError(
            f"model.name: {name} fails on images {list(x.shape)}: {type(error).__name__}: {error}"
        ) from error


def _split_head(
    net: nn.Module, x: Tensor, kind: str, logits: Tensor
) -> tuple[nn.Module, str, nn.Linear | None]:
    """``net`` without its last linear layer, the place of that and itself, where it makes the logits."""
    linear = [(path, part) for path, part in net.named_modules() if isinstance(part, nn.Linear)]
    if not linear or not linear[-1][0]:
        return net, "", None
    path, head = linear[-1]
    try:
        body = _with(net, path.split("."), nn.Identity())
        features = taken(body(x), kind)
        if features.dim() == 2 and torch.allclose(head(features), logits, rtol=1e-4, atol=1e-5):
            return body, path, head
    except Exception:
        pass  # whatever reads the layer itself, its weight say, needs it where it is
    return net, "", None


def _with(net: nn.Module, path: list[str], part: nn.Module) -> nn.Module:
    """``net`` with another part at ``path``; all others are shared, and ``net`` itself stays as it is."""
    if not path:
        return part
    shell = copy.copy(net)
    shell.__dict__["_modules"] = net._modules | {path[0]: _with(net.get_submodule(path[0]), path[1:], part)}
    return shell


def build(match: re.Match[str], spec: Spec) -> OwnModel:
    """``MODULE:CLASS`` or ``FILE.py:CLASS``, called with ``spec.options`` and what its parameters ask for."""
    name, kind = match[0], model_class(match[1], match[2])
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
