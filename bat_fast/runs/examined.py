"""What a saved model does with images, clean and attacked: measured by `evaluate`, shown by `report`."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from bat_fast._logits import missed
from bat_fast.runs.finding import Finding


class Example(NamedTuple):
    """An image and what the attack makes of it."""

    clean: Tensor
    """[C, H, W] in [0, 1]."""
    attacked: Tensor
    """[C, H, W] in [0, 1]."""


class Plane(NamedTuple):
    """The loss around an image: columns go towards the attacked image, rows along a way by chance."""

    loss: Tensor
    """[T, T] cross-entropy."""
    right: Tensor
    """[T, T] bool: the model is right."""


class Around(NamedTuple):
    """The cross-entropy of images on ways that begin at them."""

    at: Tensor
    """[T] places on a way: 0 is the image, 1 the attacked image or the edge of the ball."""
    attack: Tensor
    """[T, N] losses on the way to the attacked image."""
    chance: Tensor
    """[T, N] losses on a way by chance."""
    planes: dict[str, Plane]
    """Around a single image, ``fragile`` or ``sturdy``, as far as there is one."""


class Examined(NamedTuple):
    """A model on N images of K classes, under attacks of several radii and numbers of steps."""

    split: str
    total: int
    """Images of the split, of which N were examined."""
    classes: tuple[str, ...]
    labels: Tensor
    """[N] int64."""
    ids: Tensor
    """[N] int64 data set ids."""
    clean: Tensor
    """[N, K] logits."""
    attacked: Tensor
    """[N, K] logits under ``attack``."""
    attack: str
    """Its name, such as ``pgd20``."""
    norm: str
    eps: float
    """Radius of ``attack``, in pixels."""
    radii: dict[float, Tensor]
    """Radius -> [N] bool, right under the attack in that ball; 0 is no attack."""
    steps: dict[int, Tensor]
    """Number of steps -> [N] bool, right under PGD in the ball of ``eps``; few steps are larger, so that they
    reach its edge."""
    unbounded: float
    """A radius at which any image can become any other; one of ``radii``."""
    findings: tuple[Finding, ...]
    """Of the checks for masked gradients."""
    examples: dict[str, dict[int, Example]]
    """``fragile``: broken in the smallest balls; ``sturdy``: in the largest or in none; ``wrong`` without an
    attack. The image by its place among the N."""
    device: str
    seconds: float
    """That all this took."""
    around: Around | None = None
    """The loss around some of the images."""


def right(logits: Tensor, labels: Tensor) -> Tensor:
    """Which images are classified rightly, [N] bool; NaN is never right.

    Args:
        logits: [N, K].
        labels: [N] int64.
    """
    return ~missed(logits, labels)
