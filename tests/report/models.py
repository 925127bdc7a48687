"""What was measured of a model, without a model."""

import torch

from bat_fast.runs.examined import Examined, Example
from bat_fast.runs.finding import Finding


def examined(classes=10, n=60, names=None, *, seed=0, robust=0.5, outputs=None):
    """A model that is right on nine images of ten, and on a share of ``robust`` of them under attack."""
    generator = torch.Generator().manual_seed(seed)
    outputs = outputs or classes
    labels = torch.arange(n) % classes

    def logits(accuracy):
        seen = labels.clone()
        wrong = torch.arange(n) >= accuracy * n
        seen[wrong] = (labels[wrong] + 1) % classes
        noise = torch.rand(n, outputs, generator=generator)
        return noise + 3 * torch.nn.functional.one_hot(seen, outputs)

    clean, attacked = logits(0.9), logits(robust)
    accuracies = {0.0: 0.9, 0.05: 0.7, 0.1: robust, 0.2: robust / 2, 0.5: 0.0}
    masks = {radius: torch.arange(n) < accuracy * n for radius, accuracy in accuracies.items()}
    images = torch.rand(n, 1, 8, 8, generator=generator)
    change = 0.1 * (torch.rand(n, 1, 8, 8, generator=generator) - 0.5)
    shown = {place: Example(images[place], (images[place] + change[place]).clamp(0, 1)) for place in range(n)}
    return Examined(
        split="test",
        total=n,
        classes=tuple(names or map(str, range(classes))),
        labels=labels,
        ids=torch.arange(n) + 1000,
        clean=clean,
        attacked=attacked,
        attack="pgd20",
        norm="linf",
        eps=0.1,
        radii=masks,
        steps={1: masks[0.05], 20: masks[0.1], 50: masks[0.1]},
        unbounded=0.5,
        findings=(Finding("zero gradients", 0.0, 0.1, "share of images without one", "look for rounding"),),
        examples={
            kind: {place: shown[place]}
            for kind, place in (("fragile", n // 2), ("sturdy", 0), ("wrong", n - 1))
        },
        device="cpu",
        seconds=1.0,
    )
