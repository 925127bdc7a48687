"""Whether an exported model answers as the one it was made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bat_fast.attacks import PGD
from bat_fast.evaluate.subject import Subject

_IMAGES = 256
_STEPS = 10


@dataclass(frozen=True)
class Proof:
    """How far the logits of two models are apart."""

    images: int
    """How many test images, and as many attacked ones."""
    clean: float
    """Largest difference of a logit on test images."""
    adversarial: float
    """Largest difference of a logit on attacked images."""

    @property
    def line(self) -> str:
        """In one line."""
        return (
            f"the same class on {self.images} test images and {self.images} attacked ones; largest "
            f"difference of a logit {self.clean:.2g} and {self.adversarial:.2g}"
        )


def witnesses(subject: Subject) -> dict[str, Tensor]:
    """``clean`` and ``adversarial`` images of the test split, [N, C, H, W]."""
    batch = next(iter(subject.loader("test", _IMAGES)))
    saved = subject.described
    attack = PGD(
        subject.model,
        float(saved["eps"]),
        step_size=float(saved["step_size"]),
        steps=_STEPS,
        norm=saved["norm"],
    )
    return {"clean": batch.x, "adversarial": attack(batch.x, batch.y, index=batch.index, draw=0)}


def prove(model: nn.Module, again: Callable[[Tensor], Tensor], images: dict[str, Tensor]) -> Proof:
    """Compare two models on images.

    Raises:
        RuntimeError: they give another class to an image.
    """
    apart = {}
    with torch.no_grad():
        for name, x in images.items():
            before, after = model(x), again(x)
            apart[name] = (before - after).abs().max().item()
            other = int((before.argmax(1) != after.argmax(1)).sum())
            if other:
                raise RuntimeError(
                    f"the exported model gives {other} of {len(x)} {name} images another class; the largest "
                    f"difference of a logit is {apart[name]:.3g}"
                )
    return Proof(len(images["clean"]), apart["clean"], apart["adversarial"])
