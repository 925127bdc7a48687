"""What an examined model shows, in numbers: classes, calibration, margins, and whether to believe it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from bat_fast.runs.confusion import confusion
from bat_fast.runs.examined import Examined, right
from bat_fast.runs.finding import Finding


class ClassRow(NamedTuple):
    """One class: accuracies in [0, 1], and what its images are taken for most often under attack."""

    name: str
    n: int
    clean: float
    robust: float
    taken_for: str
    """Empty where none is broken."""


def by_class(found: Examined) -> list[ClassRow]:
    """The classes that have images, the least robust first."""
    counts = seen_as(found.attacked, found.labels)
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


def seen_as(logits: Tensor, labels: Tensor) -> Tensor:
    """[K, K] counts: true class by that of the largest of ``logits`` [N, K]."""
    return confusion(logits.argmax(1), labels, logits.shape[1])


def most_confused(found: Examined, count: int) -> list[tuple[str, str, int, int]]:
    """Pairs of classes most often confused under attack: true, predicted, how often, how often clean."""
    attacked, clean = (seen_as(each, found.labels) for each in (found.attacked, found.clean))
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


def share(correct: Tensor) -> float:
    """Mean of a mask [N]."""
    return float(correct.double().mean())


def checks(found: Examined, stored: float | None) -> list[Finding]:
    """Signs of masked gradients, as `bat_fast.evaluate.checks` has found them, or of a mistake.

    Args:
        found: of the model.
        stored: the robust accuracy under the same attack in ``results.json``; None where there is none.
    """
    made = [
        *found.findings,
        Finding(
            "NaN under attack", share(found.attacked.isnan().any(1)), 0.0,
            "share of attacked images with logits that are no numbers",
            "look for a division by 0 or an overflow in the model",
        ),
    ]  # fmt: skip
    robust = share(found.radii[found.eps])
    if stored is not None and len(found.labels) == found.total:
        made.append(
            Finding(
                "another result than stored", abs(stored - robust), 0.005,
                f"accuracy of {stored:.2%} in results.json and {robust:.2%} now, which differ by",
                "model file, data or device are not those of the run",
            )
        )  # fmt: skip
    return made
