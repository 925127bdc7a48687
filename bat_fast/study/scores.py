"""Memorisation values in a file: of a study of ours, or published, by the same names.

``tr_mem`` [n] and ``tr_labels`` [n] are the names of the files that Feldman and Zhang published for CIFAR-100
(https://pluskid.github.io/influence-memorization/), in the order of the data set; ours have ``tr_index`` [n],
the ids of the samples, beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bat_fast import data
from bat_fast.study.estimate import (
    MEMORISED,
    by_class,
    influence,
    memorisation,
    strong_pairs,
)
from bat_fast.study.folder import StudyFolder
from bat_fast.study.sealed_arrays import Array, write_arrays

ATYPICAL = 0.15
"""A sample whose memorisation is above it is atypical."""


@dataclass(frozen=True)
class Scores:
    """Memorisation of training samples, by their ids."""

    ids: Array
    """[n] int64."""
    mem: Array
    """[n] clean memorisation."""
    robust: Array | None
    """[n] robust memorisation; None where nobody has measured it."""

    def of(self, ids: Array, kind: str = "clean") -> Array:
        """The values of some samples [P], NaN for those that have none.

        Args:
            ids: [P] int64.
            kind: ``clean`` or ``robust``.

        Raises:
            ValueError: robust values are asked for and there are none.
        """
        values = self.mem if kind == "clean" else self.robust
        if values is None:
            raise ValueError("the file of memorisation values has no robust ones: take --kind clean")
        order = np.argsort(self.ids)
        place = np.searchsorted(self.ids, ids, sorter=order).clip(max=len(order) - 1)
        found = order[place]
        return np.where(self.ids[found] == ids, values[found], np.nan)


def read_scores(path: Path, train: data.Source) -> Scores:
    """Values of memorisation for the samples of ``train``, after their labels are compared.

    Args:
        path: ``memorisation.npz`` of a study, a study's folder, or a published file with ``tr_mem`` and
            ``tr_labels``.
        train: the samples they are for; where labels were changed on purpose, the true ones will do too.

    Raises:
        FileNotFoundError: there is no such file. ValueError: names, sizes or labels do not fit.
    """
    file = path / "memorisation.npz" if path.is_dir() else path
    if not file.exists():
        raise FileNotFoundError(f"--mem_scores: there is no {file}: bat-fast study memorisation makes one")
    try:
        with np.load(file, allow_pickle=False) as opened:
            known = {name: opened[name] for name in ("tr_mem", "tr_labels") if name in opened.files}
            more = {name: opened[name] for name in ("tr_index", "tr_robust_mem") if name in opened.files}
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"--mem_scores: {file} is no .npz file of numbers ({error})") from error
    if len(known) < 2 or known["tr_mem"].shape != known["tr_labels"].shape or known["tr_mem"].ndim != 1:
        raise ValueError(f"--mem_scores: {file} must hold tr_mem [n] and tr_labels [n]")
    ids = more.get("tr_index", np.arange(len(known["tr_mem"])))
    found = Scores(ids, known["tr_mem"].astype(np.float64), more.get("tr_robust_mem"))
    theirs = Scores(ids, known["tr_labels"].astype(np.float64), None).of(train.index.numpy())
    shared = ~np.isnan(theirs)
    labels = [train.labels] if train.true_labels is None else [train.labels, train.true_labels]
    wrong = min((np.flatnonzero(shared & (theirs != ours.numpy())) for ours in labels), key=len)
    if not shared.any():
        raise ValueError(f"--mem_scores: {file} has no value for a sample of {train.name}: other ids")
    if len(wrong):
        raise ValueError(
            f"--mem_scores: {file} is of other data or in another order: {len(wrong)} of {shared.sum()} "
            f"labels differ, the first of sample {int(train.index[wrong[0]])}"
        )
    return found


def write_scores(folder: StudyFolder, splits: data.Splits) -> dict[str, Array]:
    """Estimate everything from the models that are done, and write ``memorisation.npz``.

    Args:
        folder: of the study.
        splits: its data.

    Returns:
        What the file holds, of which docs/study.md has a table.

    Raises:
        ValueError: no model is done.
    """
    bits, train, test = folder.answers(), splits.train, splits.test
    labels, tested = train.labels.numpy(), test.labels.numpy()
    found: dict[str, Array] = {
        "k": np.array(len(bits["subset"])),
        "tr_index": train.index.numpy(), "tr_labels": labels,
        "tt_index": test.index.numpy(), "tt_labels": tested,
    }  # fmt: skip
    for kind, prefix in (("clean", ""), ("robust", "robust_")):
        if f"train_{kind}" not in bits:
            continue
        mem = memorisation(bits["subset"], bits[f"train_{kind}"], len(train))
        found |= {
            f"tr_{prefix}mem": mem.value, f"tr_{prefix}mem_se": mem.error,
            f"tr_{prefix}seen": mem.seen, f"tr_{prefix}unseen": mem.unseen,
        }  # fmt: skip
        for label, rows, places, values in by_class(bits["subset"], bits[f"test_{kind}"], labels, tested):
            found[f"{prefix}infl_matrix_class{label}"] = values
            found |= {f"tr_classidx_{label}": rows, f"tt_classidx_{label}": places}
        pairs = strong_pairs(bits["subset"], bits[f"test_{kind}"], len(test), mem.value, memorised=MEMORISED)
        found |= {f"{prefix}pairs_{name}": value for name, value in pairs._asdict().items()}
        errors = [
            influence(bits["subset"], bits[f"test_{kind}"], pairs.train[[n]], pairs.test[[n]]).error[0, 0]
            for n in range(min(100, len(pairs.train)))
        ]
        found[f"{prefix}pairs_influence_se"] = np.array(errors, np.float32)  # of the strongest
    write_arrays(folder.scores, found)
    return found
