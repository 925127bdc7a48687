"""What an examined model shows, in numbers: classes, calibration, margins, and whether to believe it."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from bat_fast.runs.examined import Examined, right
from bat_fast.runs.metrics import title

_BINS = 10


class ClassRow(NamedTuple):
    """One class: accuracies in [0, 1], and what its images are taken for most often under attack."""

    name: str
    n: int
    clean: float
    robust: float
    taken_for: str
    """Empty where none is broken."""


class Check(NamedTuple):
    """A sign of whether the robust accuracy is what it seems."""

    name: str
    ok: bool
    found: str
    cure: str


def by_class(found: Examined) -> list[ClassRow]:
    """The classes that have images, the least robust first."""
    counts = confusion(found.attacked, found.labels)
    clean, robust = right(found.clean, found.labels), right(found.attacked, found.labels)
    rows = []
    for number in found.labels.unique().tolist():
        here = found.labels == number
        wrong = counts[number].clone()
        wrong[number] = 0
        most = int(wrong.argmax())
        taken = found.classes[most] if int(wrong[most]) and most < len(found.classes) else ""
        accuracies = float(clean[here].float().mean()), float(robust[here].float().mean())
        rows.append(ClassRow(found.classes[number], int(here.sum()), *accuracies, taken))
    return sorted(rows, key=lambda row: (row.robust, row.clean))


def confusion(logits: Tensor, labels: Tensor) -> Tensor:
    """[K, K] counts: true class by predicted class.

    Args:
        logits: [N, K].
        labels: [N] int64.
    """
    classes = logits.shape[1]
    return torch.bincount(labels * classes + logits.argmax(1), minlength=classes**2).reshape(classes, classes)


def most_confused(found: Examined, count: int) -> list[tuple[str, str, int, int]]:
    """Pairs of classes most often confused under attack: true, predicted, how often, how often clean."""
    attacked, clean = (confusion(each, found.labels) for each in (found.attacked, found.clean))
    wrong = attacked - attacked.diag().diag()
    pairs = wrong.flatten().argsort(descending=True, stable=True)[:count].tolist()
    places = [divmod(pair, wrong.shape[1]) for pair in pairs]
    names = [*found.classes, *("-" for _ in range(wrong.shape[1] - len(found.classes)))]
    return [
        (names[true], names[seen], int(wrong[true, seen]), int(clean[true, seen]))
        for true, seen in places
        if wrong[true, seen]
    ]


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """[N] in [-1, 1]: probability of the true class less that of the likeliest other; below 0 is wrong."""
    probabilities = logits.softmax(1)
    true = probabilities.gather(1, labels[:, None])
    return (true - probabilities.scatter(1, labels[:, None], -1.0).amax(1, keepdim=True)).squeeze(1)


def reliability(logits: Tensor, labels: Tensor) -> tuple[list[tuple[float, float, int]], float]:
    """Bins of confidence (mean confidence, accuracy, images), and the expected calibration error (Guo et al.
    2017) over 10 bins of equal width."""
    confidence, seen = logits.softmax(1).max(1)
    correct = (seen == labels).float()
    place = (confidence * _BINS).long().clamp(max=_BINS - 1)
    bins, error = [], 0.0
    for number in range(_BINS):
        here = place == number
        if n := int(here.sum()):
            mean, accuracy = float(confidence[here].mean()), float(correct[here].mean())
            bins.append((mean, accuracy, n))
            error += abs(mean - accuracy) * n / len(labels)
    return bins, error


def share(correct: Tensor) -> float:
    """Mean of a mask [N]."""
    return float(correct.double().mean())


def checks(found: Examined, stored: float | None) -> list[Check]:
    """Signs of masked gradients or of a mistake, each with what to do about it.

    Athalye et al. 2018 and Carlini et al. 2019 give the reasons; limits are in points of accuracy.

    Args:
        found: of the model.
        stored: the robust accuracy under the same attack in ``results.json``; None where there is none.
    """
    radii = [(radius, share(mask)) for radius, mask in found.radii.items()]
    steps = [(count, share(mask)) for count, mask in found.steps.items()]
    robust, most = share(found.radii[found.eps]), steps[-1]
    n, nan = len(found.labels), int((found.clean.isnan() | found.attacked.isnan()).any(1).sum())
    rise = max((after[1] - before[1] for before, after in pairwise(radii)), default=0.0)
    wide, (few, at_few) = share(found.radii[found.unbounded]), steps[0]
    made = [
        Check(
            "Gradients are there",
            found.no_gradient <= 0.01 * n,
            f"zero or not finite for {found.no_gradient} of {n} images",
            "look for rounding, hard thresholds or very large logits in the model",
        ),
        Check("No output is NaN", nan == 0, f"{nan} of {n} images", "look for overflow in the model"),
        Check(
            "More steps find little more",
            robust - most[1] <= 0.01,
            f"{title(f'pgd{most[0]}')} {most[1]:.1%}, {title(found.attack)} {robust:.1%}",
            "the attack has not converged: judge with more steps or another step size",
        ),
        Check(
            "Many steps beat few",
            at_few - robust >= -0.005,
            f"{title(f'pgd{few}')} {at_few:.1%}, {title(found.attack)} {robust:.1%}",
            "gradients mislead the attack: catastrophic overfitting, or masking",
        ),
        Check(
            "Accuracy falls with the radius",
            rise <= 0.005,
            f"largest rise {max(0.0, rise):.1%} from a radius to the next",
            "gradients mislead the attack: judge with AutoAttack",
        ),
        Check(
            "A large ball breaks everything",
            wide <= 0.02,
            f"{wide:.1%} at radius {found.unbounded:.3g}",
            "every image can become grey there: the gradients are masked",
        ),
    ]
    if stored is not None and n == found.total:
        made.append(
            Check(
                "The stored result is reproduced",
                abs(stored - robust) <= 0.005,
                f"results.json {stored:.2%}, now {robust:.2%}",
                "model file, data or device are not those of the run",
            )
        )
    return made
