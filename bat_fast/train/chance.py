"""The alarm for labels that do not belong to the images."""

from __future__ import annotations

import math


def chance_alarm(split: str, accuracy: float, learnt: float, classes: int, examples: int) -> str | None:
    """A warning where a model that has learnt something is at chance on a split.

    That is what class ids in another order look like: the published labels of Tiny ImageNet's validation
    images have cost many people a run.

    Args:
        split: ``val`` or ``test``.
        accuracy: on that split, in [0, 1].
        learnt: on images of which the labels are known to fit: training for ``val``, ``val`` for ``test``.
        classes: number of classes.
        examples: images in the split.
    """
    chance = 1 / classes
    spread = math.sqrt(chance * (1 - chance) / examples)  # of an accuracy at chance
    if learnt < max(4 * chance, chance + 0.1) or accuracy > chance + 3 * spread:
        return None
    return (
        f"{split} accuracy {accuracy:.2%} is that of chance with {classes} classes, though {learnt:.2%} were "
        f"learnt: does the label mapping of the {split} split agree with classes.txt (class ids are the "
        "sorted class names)?"
    )
