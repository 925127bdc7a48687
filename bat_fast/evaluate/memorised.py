"""Typical and atypical images: how much what is said of an image hangs on single training images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

THRESHOLD = 0.15
"""Scores above it are atypical (Xu et al. 2021)."""


class Memorised:
    """Scores of images, from a file such as those that Feldman & Zhang (2020, arXiv:2008.03703) have
    published for CIFAR-100.

    Images of training and validation have their memorisation, ``tr_mem``. One of the test set has the largest
    influence of a training image of its class, from ``infl_matrix_classK`` [training images, test images] and
    ``tt_classidx_K``; or its ``tt_mem``, where the file has that.

    Args:
        path: of an npz file, which also has ``tr_labels`` and ``tt_labels``; nothing in it is run.
        split: ``train``, ``val`` or ``test``.

    Raises:
        ValueError: the file lacks an array. OSError: it cannot be read.
    """

    def __init__(self, path: str | Path, split: str) -> None:
        self._path, self._part = path, "tt" if split == "test" else "tr"
        part = self._part
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files if _wanted(name, part)}
        except (ValueError, EOFError, AttributeError) as error:
            raise ValueError(f"mem_scores: {path} is no npz file of numbers ({error})") from None
        if f"{part}_labels" not in arrays:
            raise ValueError(f"mem_scores: {path} has no {part}_labels, so nothing says whose the scores are")
        self._labels = arrays[f"{part}_labels"]
        scores = arrays.get(f"{part}_mem")
        if scores is None and part == "tt":
            scores = _influence(arrays, len(self._labels))
        if scores is None or len(scores) != len(self._labels):
            raise ValueError(f"mem_scores: {path} has no {part}_mem for each of {len(self._labels)} images")
        self._scores = np.asarray(scores, dtype=np.float32)

    def scores(self, index: Tensor, label: Tensor) -> Tensor:
        """Scores [N] float32 of images, whose labels are compared first.

        Args:
            index: [N] int64 places in the arrays, as the data set numbers its images.
            label: [N] int64.

        Raises:
            ValueError: the file is about other images.
        """
        place = index.cpu().numpy()
        inside = int(place.max()) < len(self._labels)
        if not inside or (self._labels[place] != label.cpu().numpy()).any():
            raise ValueError(
                f"mem_scores: {self._path} is about other images: its {self._part}_labels are not theirs"
            )
        return torch.from_numpy(self._scores[place])


def _wanted(name: str, part: str) -> bool:
    influence = part == "tt" and name.startswith(("infl_matrix_class", "tt_classidx_"))
    return influence or name in (f"{part}_labels", f"{part}_mem")


def _influence(arrays: dict[str, Any], count: int) -> Any:
    """The largest influence on each test image; None where the file has none."""
    found = np.full(count, np.nan, dtype=np.float32)
    for name, matrix in arrays.items():
        if name.startswith("infl_matrix_class"):
            places = arrays.get(f"tt_classidx_{name.removeprefix('infl_matrix_class')}")
            if places is not None and matrix.ndim == 2 and matrix.shape[1] == len(places):
                found[places] = matrix.max(0, initial=0.0)
    return None if np.isnan(found).any() else found
