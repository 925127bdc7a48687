"""The files that ``bat-fast prepare`` decodes, as a data set lists them."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from bat_fast.data.files import Files


class Contents(NamedTuple):
    """What a cache is made of.

    Args:
        name: of the data set.
        files: the images of the training part, then those of a published validation part, if there is one,
            and then those of the test part.
        labels: one for each file.
        classes: the names of the classes.
        train: how many files are the training part.
        stats: mean and std of each channel; None where they are measured when the cache is read.
        held: how many files are the published validation part.
    """

    name: str
    files: Files
    labels: list[int]
    classes: tuple[str, ...]
    train: int
    stats: tuple[tuple[float, ...], tuple[float, ...]] | None
    held: int = 0

    def fingerprint(self) -> str:
        """A hash of everything but the pixels."""
        parts = [self.name, str(self.files.size), str(self.train), *self.classes]
        if not self.files.exact:
            parts.append("resized")
        if self.held:
            parts.append(f"{self.held} validate")
        parts += [f"{name}\t{label}" for name, label in zip(self.files.names, self.labels, strict=True)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
