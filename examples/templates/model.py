"""A model to copy: bat_fast/models/NAME.py, and ``--model.name template_8`` works.

Here: a perceptron with one hidden layer.
"""

from __future__ import annotations

import re

from torch import Tensor, nn

from bat_fast.models.activation import activation
from bat_fast.models.base import Classifier, Spec

NAMES = ("template_WIDTH",)  # how `bat_fast.models.names` shows it
PATTERN = re.compile(r"template[-_](\d+)")  # what it answers to; no other model may match the same name


class Template(Classifier):
    """A hidden layer between pixels and logits.

    Args:
        spec: classes, channels, image size, activation and normalisation.
        width: of the hidden layer.
    """

    def __init__(self, spec: Spec, *, width: int) -> None:
        super().__init__(spec, feature_dim=width)  # what `embed` returns: BAT compares these features
        if spec.image_size is None:
            raise ValueError("image_size: this model needs to know the size of the images")
        self.hidden = nn.Linear(spec.in_channels * spec.image_size**2, width)
        self.activation = activation(spec.activation)()  # so that --model.activation silu works
        self.head = nn.Linear(width, spec.num_classes)  # logits are head(embed(normalised pixels))

    def embed(self, x: Tensor) -> Tensor:
        """The features [N, D] of normalised images ``x`` [N, C, H, W]."""
        features: Tensor = self.activation(self.hidden(x.flatten(1)))
        return features


def build(match: re.Match[str], spec: Spec) -> Template:
    """The model for a name that `PATTERN` matches."""
    return Template(spec, width=int(match[1]))
