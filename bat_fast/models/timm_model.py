"""Any image classifier of timm, with normalisation inside and features shown."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from bat_fast._install import install
from bat_fast.models.activation import activation, replace_relu
from bat_fast.models.base import Classifier, Spec
from bat_fast.spelling import hint

NAMES = ("timm:NAME",)
PATTERN = re.compile(r"timm:(.+)")
IS_PUBLISHED = True


class TimmModel(Classifier):
    """``timm.create_model(name)``, behind the interface of this project.

    The activation ``relu`` leaves the network as timm makes it; any other one replaces every ReLU.

    Args:
        name: name of the model in timm.
        spec: classes, channels, image size, activation and normalisation.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no such model, the model does not end in one linear layer, or it has no
            ReLU that the activation could replace.
        OSError: its published weights are asked for, and neither in the cache of timm nor to be had.
    """

    def __init__(self, name: str, spec: Spec) -> None:
        net = _create(name, spec)
        if spec.activation.lower() != "relu":
            _smooth(net, name, spec.activation)
        classifier = net.get_classifier()
        if not isinstance(classifier, nn.Linear):
            raise ValueError(
                f"timm:{name} does not end in one linear layer, so it has no penultimate features"
            )
        super().__init__(_as_published(spec, net), feature_dim=classifier.in_features)
        self.net = net

    def embed(self, x: Tensor) -> Tensor:
        """The features [N, D] of normalised images ``x`` [N, C, H, W]."""
        features: Tensor = self.net.forward_head(self.net.forward_features(x), pre_logits=True)
        return features

    def renamed(self, name: str) -> str:
        """What a weight of the model of timm is called here."""
        return f"net.{name}"

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Switch the activation checkpointing of timm; AssertionError where the model has none."""
        self.net.set_grad_checkpointing(enable)

    def classify(self, features: Tensor) -> Tensor:
        """The logits [N, K] that belong to ``features`` [N, D]."""
        # Looked up each time: kept as an attribute too, its weights would be in the state_dict twice.
        logits: Tensor = self.net.get_classifier()(features)
        return logits


def has_model(name: str) -> bool:
    """Whether timm is installed and has a model of that name."""
    try:
        import timm
    except ImportError:
        return False
    return timm.is_model(name)


def published_classes(name: str) -> int | None:
    """The classes of the published weights of ``timm:NAME``; None where there are none, or no timm."""
    plain = name.partition(":")[2]
    if not has_model(plain):
        return None
    import timm

    published = timm.get_pretrained_cfg(plain)
    return None if published is None else int(published.num_classes)


def _create(name: str, spec: Spec) -> Any:
    try:
        import timm
    except ImportError:
        raise ImportError(f"timm models need timm: {install('timm')}") from None
    if not timm.is_model(name):
        raise ValueError(f"timm has no model {name!r}{hint(name, timm.list_models())}")
    options: dict[str, Any] = {"num_classes": spec.num_classes, "in_chans": spec.in_channels}
    published = timm.get_pretrained_cfg(name)
    if spec.image_size is not None and published is not None and published.fixed_input_size:
        options["img_size"] = spec.image_size
    try:
        return timm.create_model(name, pretrained=spec.pretrained, **options)
    except Exception as error:  # each way of downloading has errors of its own
        if not spec.pretrained:
            raise
        raise OSError(
            f"model.pretrained: the weights of timm:{name} are not in the cache of timm and cannot be "
            f"downloaded ({type(error).__name__}): fetch them where there is a network, or give a file with "
            "--model.init"
        ) from error


def _as_published(spec: Spec, net: Any) -> Spec:
    """``spec`` with the normalisation that published weights were trained with."""
    if not spec.pretrained:
        return spec
    mean, std = net.pretrained_cfg["mean"], net.pretrained_cfg["std"]
    if len(mean) != spec.in_channels:  # timm adds up the weights of the colours
        mean, std = ((sum(part) / len(part),) * spec.in_channels for part in (mean, std))
    return replace(spec, mean=tuple(mean), std=tuple(std))


def _smooth(net: nn.Module, name: str, wanted: str) -> None:
    kind = type(activation(wanted)())
    if not replace_relu(net, wanted) and not any(isinstance(module, kind) for module in net.modules()):
        raise ValueError(f"activation: timm:{name} has no ReLU that {wanted} could replace; set it to relu")


def build(match: re.Match[str], spec: Spec) -> TimmModel:
    """``timm:NAME``."""
    return TimmModel(match[1], spec)
