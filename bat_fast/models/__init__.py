"""Classifiers by name. They take pixels in [0, 1] and normalise them inside.

A new architecture is a new module of this package with three things, and no list to edit: ``NAMES`` (how
`names` shows it), ``PATTERN`` (what it answers to, any case), and ``build(match, spec) -> Classifier``.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from bat_fast.models.activation import activation as _activation
from bat_fast.models.activation import activations, smooth
from bat_fast.models.base import Classifier, Spec
from bat_fast.models.model_class import located
from bat_fast.models.normalize import Normalize
from bat_fast.models.own_model import wrap
from bat_fast.models.timm_model import has_model, published_classes
from bat_fast.ops.activation import decompositions
from bat_fast.spelling import hint

__all__ = [
    "Classifier", "Normalize", "Spec", "activations", "create", "decompositions", "located", "names",
    "published_classes", "smooth", "wrap",
]  # fmt: skip
_GROUP = "bat_fast.models"


def _architectures() -> Iterator[ModuleType]:
    for found in pkgutil.iter_modules(__path__):
        module = import_module(f"{__name__}.{found.name}")
        if hasattr(module, "PATTERN"):
            yield module


def names() -> list[str]:
    """The models there are, as `create` takes them; words in capitals stand for a number or a name."""
    return [*(name for module in _architectures() for name in module.NAMES), *_foreign()]


def _foreign() -> dict[str, str]:
    """The models of other packages, as ``MODULE:CLASS``: entry points of the group ``bat_fast.models``."""
    return {point.name: point.value for point in entry_points(group=_GROUP)}


def _find(name: str) -> tuple[ModuleType, re.Match[str]] | None:
    name = _foreign().get(name, name)
    for module in _architectures():
        match = re.fullmatch(module.PATTERN.pattern, name, re.IGNORECASE)
        if match:
            return module, match
    return None


def _split(name: str) -> Iterator[tuple[str, str]]:
    """``wrn-28-10-swish`` as (model, activation), for every activation that ends the name."""
    for suffix in activations():
        if re.search(rf"[-_]{suffix}$", name, re.IGNORECASE):
            yield name[: -len(suffix) - 1], suffix


def _hint(name: str) -> str:
    """A suggestion for what is no model: one of ours, or the one that timm has by that name."""
    if has_model(name.lower()):
        return f"; did you mean timm:{name.lower()}?"
    return hint(name, [known.replace("DEPTH_WIDTH", "28_10") for known in names() if ":" not in known])


def create(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: int | None = None,
    activation: str = "relu",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    options: Mapping[str, Any] | None = None,
    pretrained: bool = False,
) -> Classifier:
    """A classifier with new weights (drawn from torch's global generator).

    Args:
        name: one of `names`, e.g. ``small_cnn``, ``preactresnet18``, ``wrn_28_10``, ``timm:resnet50``; case
            and dashes do not matter (``PreActResNet-18``, ``WideResNet-34-10``), and an activation may
            follow (``wrn-28-10-swish``). A class of one's own is ``package.module:Class`` or
            ``path/to/file.py:Class``, a `torch.nn.Module`: see `bat_fast.models.own_model`.
        num_classes: number of logits.
        in_channels: channels of the images.
        image_size: height = width of the images; needed by vision transformers only.
        activation: ``relu``, ``silu``, ``gelu``, ``elu``, ``celu``, ``mish``, ``softplus`` or
            ``smooth_relu``.
        mean, std: per channel, of pixels in [0, 1]; None does not normalise.
        options: arguments of the constructor of a class of one's own.
        pretrained: begin with the published weights of a ``timm:`` model, from its cache or downloaded, and
            normalise as they need it, whatever ``mean`` and ``std`` are.

    Raises:
        ValueError: an unknown model or activation, a depth that does not exist, or two activations.
        ImportError: the model needs timm and it is not installed.
    """
    found = _find(name)
    if found is None:
        for model, suffix in _split(name):
            found = _find(model)
            if found is not None:
                if activation not in ("relu", suffix):
                    raise ValueError(f"activation: {name!r} says {suffix}, but activation is {activation!r}")
                activation = suffix
                break
    if found is None:
        raise ValueError(f"there is no model {name!r}; there are {', '.join(names())}{_hint(name)}")
    _activation(activation)  # an unknown one is an error also where the model would not use it
    module, match = found
    spec = Spec(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        activation=activation,
        mean=None if mean is None else tuple(mean),
        std=None if std is None else tuple(std),
        options=options or {},
        pretrained=pretrained,
    )
    if options and not getattr(module, "TAKES_OPTIONS", False):
        raise ValueError(f"model.options: {name} takes none, got {', '.join(options)}")
    if pretrained and not getattr(module, "IS_PUBLISHED", False):
        raise ValueError(
            f"model.pretrained: there are no published weights of {name}, only of timm:NAME; "
            "model.init takes a file or a run"
        )
    model_: Classifier = module.build(match, spec)
    return model_
