"""A model that holds no operator of this package, so that it runs without it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from bat_fast._logits import logits_of
from bat_fast.models.activation import SmoothReLU, Softplus

_LINEAR_FROM = 80.0  # sharpness times x, where the exponential is still finite
_LEAST = 1e-12  # of the sharpness, which is divided by
_LARGEST = 2.0**126


class PlainSmoothReLU(nn.Module):
    """``r - log(1 + b r) / b`` with ``r = max(x, 0)``, in operators of torch; ``b`` is a constant.

    Args:
        sharpness: b, a scalar.
    """

    sharpness: Tensor

    def __init__(self, sharpness: Tensor) -> None:
        super().__init__()
        self.register_buffer("sharpness", sharpness.detach().clamp(_LEAST, _LARGEST))

    def forward(self, x: Tensor) -> Tensor:
        """f(x), of the shape of ``x``."""
        positive = x.relu()
        return positive - (self.sharpness * positive).log1p() / self.sharpness


class Logits(nn.Module):
    """Pixels to logits, and nothing else: a model may return more, and take options.

    Args:
        classifier: of pixels in [0, 1].
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of ``x`` [N, C, H, W]."""
        return logits_of(self.classifier(x))


def plain(model: nn.Module) -> Logits:
    """A copy of ``model`` in eval mode and float32 on the CPU, without operators of this package."""
    copied = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, SmoothReLU):
                setattr(parent, name, PlainSmoothReLU(child.beta_raw.square()))
            elif isinstance(child, Softplus):
                setattr(parent, name, nn.Softplus(beta=child.sharpness, threshold=_LINEAR_FROM))
    return Logits(copied).eval()


def example(described: dict[str, object], count: int = 2) -> Tensor:
    """Images [count, C, H, W] of the size that the model takes."""
    size = described["image_size"]
    return torch.rand(count, int(str(described["in_channels"])), int(str(size)), int(str(size)))
