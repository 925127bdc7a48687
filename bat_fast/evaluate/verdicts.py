"""What was found out about each image, and what that says about the model."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bat_fast._atomic import atomic_text
from bat_fast.batch import Batch
from bat_fast.runs.metrics import metric
from bat_fast.runs.proportion import wilson

COLUMNS = ("position", "index", "label", "clean", "robust", "broken_by")
NO_ANSWER = -1
"""The class of an image for which a model gives NaN: none."""
WORST = "worst"
"""In place of an attack: the image is right under all of them."""
_MASKED = {  # attack: (share of all images that it may break after the others, what more of them means)
    "apgd-t": (0.05, "cross entropy finds few of them: the logits may be scaled"),
    "square": (0.002, "the attacks by gradient missed them: the model may hide its gradient"),
}


class Verdicts:
    """Predicted classes, image by image, without an attack and under attacks.

    Args:
        split: the name of the images in those of metrics.
        radii: at which attacks are.
    """

    def __init__(self, split: str, radii: Sequence[float]) -> None:
        self.split = split
        self.index, self.label, self.answer = (torch.empty(0, dtype=torch.int64) for _ in range(3))
        self.under: dict[float, dict[str, Tensor]] = {radius: {} for radius in radii}
        self.broken_by: dict[float, dict[str, list[str]]] = {radius: {} for radius in radii}

    def __len__(self) -> int:
        return len(self.label)

    def add_images(self, batch: Batch, answer: Tensor) -> None:
        """The next images, and the class [N] that the model gives each."""
        self.index = torch.cat([self.index, batch.index.cpu()])
        self.label = torch.cat([self.label, batch.y.cpu()])
        self.answer = torch.cat([self.answer, answer])

    def add(self, radius: float, name: str, answer: Tensor, broken_by: list[str] | None) -> None:
        """The classes [N] of the last images under attack ``name``, and what of AutoAttack broke each."""
        before = self.under[radius].get(name, answer[:0])
        self.under[radius][name] = torch.cat([before, answer])
        if broken_by is not None:
            self.broken_by[radius].setdefault(name, []).extend(broken_by)

    def right(self, radius: float) -> dict[str, Tensor]:
        """[n] bool without an attack and under each: the model is right."""
        answers = {"clean": self.answer, **self.under[radius]}
        found = {name: given == self.label for name, given in answers.items()}
        if len(found) > 2:
            found[WORST] = torch.stack(list(found.values())).all(0)
        return found

    def accuracies(self, radius: float) -> dict[str, dict[str, Any]]:
        """``metrics`` and their ``intervals``."""
        count = len(self)
        named = {
            metric(self.split, name): int(right.sum()) / count for name, right in self.right(radius).items()
        }
        return {
            "metrics": named,
            "intervals": {name: list(wilson(value, count)) for name, value in named.items()},
        }

    def parts(self, radius: float) -> list[str]:
        """For each image what broke it under the first AutoAttack that there was; empty without one."""
        return next(iter(self.broken_by[radius].values()), [])

    def notes(self) -> list[str]:
        """What the answers say against the model."""
        nan = int((self.answer == NO_ANSWER).sum())
        return [f"the model gives NaN for {nan} of {len(self)} images, which count as wrong"] if nan else []

    def by_class(self, radius: float, classes: Sequence[str] | None) -> dict[str, Any]:
        """``per_class``, accuracies of each class, and ``confusion``, counts [true class][given class].

        Args:
            radius: of the attacks.
            classes: names; None numbers them.
        """
        given = {"clean": self.answer, **self.under[radius]}
        kinds = 1 + max(int(answers.max()) for answers in (self.label, *given.values()))
        names = [str(kind) for kind in range(kinds)] if classes is None else list(classes)
        kinds = max(kinds, len(names))
        names += [str(kind) for kind in range(len(names), kinds)]
        count = self.label.bincount(minlength=kinds)
        shares = {
            metric(self.split, name): (
                self.label[right].bincount(minlength=kinds) / count.clamp(min=1)
            ).tolist()
            for name, right in self.right(radius).items()
        }
        confusion = {}
        for name, answers in given.items():
            known = answers != NO_ANSWER
            places = self.label[known] * kinds + answers[known]
            confusion[metric(self.split, name)] = (
                places.bincount(minlength=kinds * kinds).view(kinds, kinds).tolist()
            )
        return {
            "per_class": {"classes": names, "n_examples": count.tolist(), **shares},
            "confusion": confusion,
        }

    def write(self, file: Path, radius: float) -> None:
        """The CSV file with a row for each image: ``COLUMNS``."""
        broken = self.parts(radius)
        clean = (self.answer == self.label).int().tolist()
        rows = zip(self.index.tolist(), self.label.tolist(), clean, broken, strict=True)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(
            (place, index, label, right, int(not by), by)
            for place, (index, label, right, by) in enumerate(rows)
        )
        atomic_text(file, text.getvalue())


def notes_of(broken: dict[str, int], count: int) -> list[str]:
    """What makes a verdict of AutoAttack doubtful.

    Args:
        broken: how many images each attack broke after those before it.
        count: images in all.
    """
    return [
        f"{name} broke {broken[name] / count:.1%} of all images after the attacks before it: {meaning}"
        for name, (most, meaning) in _MASKED.items()
        if broken.get(name, 0) > most * count
    ]
