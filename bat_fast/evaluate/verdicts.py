"""What was found out about each image, and what that says about the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bat_fast._atomic import atomic_write
from bat_fast.attacks.autoattack import CLEAN
from bat_fast.evaluate.answers import NO_ANSWER
from bat_fast.evaluate.columns import column
from bat_fast.runs.calibration import reliability
from bat_fast.runs.confusion import confusion
from bat_fast.runs.metrics import metric
from bat_fast.runs.proportion import wilson
from bat_fast.runs.sealed_tensors import sealed_tensors
from bat_fast.runs.table_file import write_table

COLUMNS = ("position", "index", "label", "clean", "robust", "broken_by")
WORST = "worst"
"""In place of an attack: the image is right under all of them."""
_MASKED = {  # attack: (share of all images that it may break after the others, what more of them means)
    "apgd-t": (0.05, "cross entropy finds few of them: the logits may be scaled"),
    "square": (0.002, "the attacks by gradient missed them: the model may hide its gradient"),
}


class Verdicts:
    """Columns of what is known about each image: its ``position`` among all, ``index``, ``label``, and what
    the model says without an attack and under attacks (`bat_fast.evaluate.columns`).

    Args:
        split: the name of the images in those of metrics.
        words: of each attack, what its numbers of ``broken`` mean.
    """

    def __init__(self, split: str, words: dict[str, list[str]]) -> None:
        self.split, self.words = split, words
        self.columns: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self.columns["position"]) if self.columns else 0

    def __getitem__(self, name: str) -> Tensor:
        return self.columns[name]

    def add(self, columns: dict[str, Tensor]) -> None:
        """The next images."""
        before = self.columns
        self.columns = {
            name: torch.cat([before[name], tensor]) if before else tensor for name, tensor in columns.items()
        }

    def gather(self, shares: Iterable[dict[str, Tensor]]) -> None:
        """Take the columns of all ``shares``, by position."""
        some = [share for share in shares if share]
        if some:  # a process without an image reports what the others have found
            order = torch.cat([share["position"] for share in some]).argsort()
            self.columns = {name: torch.cat([share[name] for share in some])[order] for name in some[0]}

    def answers(self, radius: float) -> dict[str, Tensor]:
        """The class [n] given without an attack and under each."""
        found = {"clean": self[column("answer")]}
        return found | {name: self[column("answer", name, radius)] for name in self.words}

    def right(self, radius: float) -> dict[str, Tensor]:
        """[n] bool without an attack and under each: the model is right."""
        found = {name: given == self["label"] for name, given in self.answers(radius).items()}
        if len(found) > 2:
            found[WORST] = torch.stack(list(found.values())).all(0)
        return found

    def accuracies(self, radius: float, some: Tensor | None = None) -> dict[str, dict[str, Any]]:
        """``metrics`` and their ``intervals``; of ``some`` images, [n] bool, where they are given."""
        right = {name: each if some is None else each[some] for name, each in self.right(radius).items()}
        named = {metric(self.split, name): int(each.sum()) / len(each) for name, each in right.items()}
        count = len(right["clean"])
        return {
            "metrics": named,
            "intervals": {name: list(wilson(value, count)) for name, value in named.items()},
        }

    def calibration(self, radius: float) -> dict[str, float]:
        """The expected calibration error without an attack and under each."""
        radii = {name: radius if name != "clean" else 0.0 for name in self.answers(radius)}
        return {
            metric(self.split, name): reliability(
                self[column("confidence", name, at)], self.right(radius)[name]
            )[1]
            for name, at in radii.items()
        }

    def parted(self, radius: float, scores: Tensor, threshold: float) -> dict[str, Any]:
        """The accuracies of ``atypical`` images, whose score [n] is above ``threshold``, and of ``typical``
        ones."""
        found: dict[str, Any] = {"threshold": threshold}
        for name, some in (("typical", scores <= threshold), ("atypical", scores > threshold)):
            count = int(some.sum())
            found[name] = {"n_examples": count, **(self.accuracies(radius, some) if count else {})}
        return found

    def broken_by(self, radius: float, name: str) -> list[str]:
        """For each image what broke it under attack ``name``."""
        words, key = self.words[name], column("broken", name, radius)
        if key in self.columns:
            return [words[number] for number in self[key].tolist()]
        clean, robust = (self.right(radius)[each].tolist() for each in ("clean", name))
        pairs = zip(clean, robust, strict=True)
        return ["" if still else name if right else CLEAN for right, still in pairs]

    def notes(self, radius: float) -> list[str]:
        """What the answers say against the model."""
        nan, count = int((self[column("answer")] == NO_ANSWER).sum()), len(self)
        found = [f"the model gives NaN for {nan} of {count} images, which count as wrong"] if nan else []
        for name, right in self.right(radius).items():
            if column("broken", name, radius) in self.columns:
                differ = int((right != (self[column("broken", name, radius)] == 0)).sum())
                if differ:
                    found.append(
                        f"{name}: the verdicts on {differ} of {count} images are others in a second pass of "
                        "the same images: the model is random, or depends on the batch"
                    )
        return found

    def by_class(self, radius: float, classes: Sequence[str] | None) -> dict[str, Any]:
        """``per_class``, accuracies of each class, and ``confusion``, counts [true class][given class].

        Args:
            radius: of the attacks.
            classes: names; None numbers them.
        """
        given, label = self.answers(radius), self["label"]
        kinds = 1 + max(int(answers.max()) for answers in (label, *given.values()))
        names = [str(kind) for kind in range(kinds)] if classes is None else list(classes)
        kinds = max(kinds, len(names))
        names += [str(kind) for kind in range(len(names), kinds)]
        count = label.bincount(minlength=kinds)
        shares = {
            metric(self.split, name): (label[right].bincount(minlength=kinds) / count.clamp(min=1)).tolist()
            for name, right in self.right(radius).items()
        }
        counts = {
            metric(self.split, name): confusion(answers, label, kinds).tolist()
            for name, answers in given.items()
        }
        return {
            "per_class": {"classes": names, "n_examples": count.tolist(), **shares},
            "confusion": counts,
        }

    def write(self, file: Path, radius: float, name: str) -> None:
        """The CSV or Parquet file with a row for each image: ``COLUMNS``."""
        clean = (self[column("answer")] == self["label"]).int().tolist()
        numbers = [self[each].tolist() for each in ("position", "index", "label")]
        broken = self.broken_by(radius, name)
        values = (*numbers, clean, [int(not by) for by in broken], broken)
        write_table(file, dict(zip(COLUMNS, values, strict=True)))

    def write_images(self, file: Path, radius: float, name: str, described: dict[str, str]) -> None:
        """The safetensors file with the images under attack ``name``: ``adv`` [n, C, H, W], and ``index``,
        ``label``, ``answer`` and ``broken_by`` [n], whose numbers mean the words in the metadata."""
        from safetensors.torch import save

        words = self.words[name]
        codes = torch.tensor([words.index(by) for by in self.broken_by(radius, name)])
        tensors = {"adv": self[column("adv", name, radius)], "index": self["index"], "label": self["label"]}
        tensors |= {"answer": self[column("answer", name, radius)], "broken_by": codes}
        said = described | {"broken_by": ",".join(words), "attack": name}
        plain = {key: tensor.contiguous() for key, tensor in tensors.items()}
        atomic_write(file, lambda opened: opened.write(sealed_tensors(save(plain, said))))


def notes_of(broken: dict[str, int], count: int, classes: int) -> list[str]:
    """What makes a verdict of AutoAttack doubtful, and what it is about with few classes.

    Args:
        broken: how many images each attack broke after those before it.
        count: images in all.
        classes: logits of the model.
    """
    notes = [
        f"{name} broke {broken[name] / count:.1%} of all images after the attacks before it: {meaning}"
        for name, (most, meaning) in _MASKED.items()
        if broken.get(name, 0) > most * count
    ]
    if "apgd-t" in broken and classes < 4:
        notes.append(f"dlr is not defined for {classes} classes: apgd-t climbed the margin in its place")
    return notes
