"""What every classifier of this project is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, overload

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bat_fast.models.normalize import Normalize


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What a model is asked to be, whatever its architecture.

    Raises:
        ValueError: a number below 1, or ``mean``/``std`` that do not have one value per channel, or one of
            them is outside of [0, 1], where the pixels are; a ``std`` is above 0.
    """

    num_classes: int
    """K, the number of logits."""
    in_channels: int = 3
    """C of the images."""
    image_size: int | None = None
    """Height = width of the images, for the models that depend on it."""
    activation: str = "relu"
    """Name of the activation, see `bat_fast.models.activation`."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel in [0, 1]; None leaves the pixels as they are."""
    std: tuple[float, ...] | None = None
    """Standard deviation of each channel; None is 1."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the constructor of a class of one's own."""
    pretrained: bool = False
    """Begin with published weights, where there are some, and normalise as they need it."""

    def __post_init__(self) -> None:
        for name in ("num_classes", "in_channels", "image_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.in_channels:
                raise ValueError(
                    f"{name} needs one number per channel, {self.in_channels}, got {len(values)}"
                )
            for value in values or ():
                if not 0 <= value <= 1 or (name == "std" and value == 0):
                    least = "> 0 and at most 1" if name == "std" else "in [0, 1]"
                    cure = ": divide it by 255" if 1 < value <= 255 else ""
                    raise ValueError(f"{name} must be {least}, as pixels are in [0, 1], got {value}{cure}")


class Classifier(nn.Module):
    """A classifier of images in [0, 1] that normalises them itself and can show its features.

    A subclass sets ``head``, which maps features [N, D] to logits [N, K], and defines `embed`. One that is
    made of blocks is a `BlockClassifier`, or defines ``set_grad_checkpointing(enable)`` itself, named as in
    timm.

    Args:
        spec: classes, channels and normalisation.
        feature_dim: D, the length of a feature vector.
    """

    head: nn.Module

    def __init__(self, spec: Spec, feature_dim: int) -> None:
        super().__init__()
        self.num_classes = spec.num_classes
        self.feature_dim = feature_dim
        self.normalize = Normalize(
            (0.0,) * spec.in_channels if spec.mean is None else spec.mean,
            (1.0,) * spec.in_channels if spec.std is None else spec.std,
        )

    def embed(self, x: Tensor) -> Tensor:
        """The features [N, D] of normalised images ``x`` [N, C, H, W]."""
        raise NotImplementedError

    def classify(self, features: Tensor) -> Tensor:
        """The logits [N, K] that belong to ``features`` [N, D]."""
        logits: Tensor = self.head(features)
        return logits

    def features(self, x: Tensor) -> Tensor:
        """The input [N, D] of the last linear layer for pixels ``x`` [N, C, H, W] in [0, 1]."""
        return self.embed(self.normalize(x))

    @overload
    def forward(self, x: Tensor, return_features: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, return_features: Literal[True]) -> tuple[Tensor, Tensor]: ...
    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [N, K], or (logits, features [N, D]) of one and the same pass.

        Features are an option of ``forward`` because a distributed model synchronises there only.

        Args:
            x: [N, C, H, W] pixels in [0, 1].
            return_features: whether to return the features too.

        Raises:
            ValueError: ``x`` is not [N, C, H, W] with the model's number of channels.
        """
        features = self.features(x)
        logits = self.classify(features)
        return (logits, features) if return_features else logits


class BlockClassifier(Classifier):
    """A classifier whose body is ``blocks``, one after the other, which a subclass sets."""

    blocks: nn.Sequential
    _checkpointing = False

    def through_blocks(self, maps: Tensor) -> Tensor:
        """What the blocks make of ``maps`` [N, C, H, W]."""
        for block in self.blocks:
            maps = checkpoint(block, maps, use_reentrant=False) if self._checkpointing else block(maps)
        return maps

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep the inputs of the blocks alone for the backward pass, which runs the blocks again."""
        self._checkpointing = enable
