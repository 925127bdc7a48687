"""Typical and atypical samples, of training and of test."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bat_fast.study.folder import StudyFolder
from bat_fast.study.scores import ATYPICAL
from bat_fast.study.sealed_arrays import Array, read_arrays


class Groups(NamedTuple):
    """Which samples are atypical, and how a study measured that."""

    kind: str
    """``clean`` or ``robust`` answers count."""
    train: Array
    """[n] bool: memorisation above `ATYPICAL`."""
    test: Array
    """[m] bool: right in less than 1 - `ATYPICAL` of the models, none of which saw it."""
    mem: Array
    """[n] memorisation."""
    train_ids: Array
    test_ids: Array


def read_groups(study: StudyFolder, kind: str) -> Groups:
    """The groups that a study makes of its data.

    A training sample is atypical where only the models that saw it are right. A test image was seen by none,
    so it is atypical where models without it fail as they do on such a sample. (Feldman and Zhang look for a
    training sample that decides it; that takes thousands of models, as a maximum over all of them is noise.)

    Args:
        study: with its values estimated.
        kind: ``clean`` or ``robust``.

    Raises:
        ValueError: ``kind`` was not measured, or nothing is estimated yet.
    """
    if not study.scores.exists():
        raise ValueError(f"{study.path} has no values yet: bat-fast study memorisation {study.path}")
    found, prefix = read_arrays(study.scores), "" if kind == "clean" else "robust_"
    if f"tr_{prefix}mem" not in found:
        raise ValueError(f"{study.path} did not attack its models: take --kind clean")
    bits, tested = study.answers()[f"test_{kind}"], found["tt_labels"]
    right = np.unpackbits(bits, axis=1, count=len(tested)).mean(0)
    mem = found[f"tr_{prefix}mem"]
    atypical = np.nan_to_num(mem) > ATYPICAL
    return Groups(kind, atypical, right < 1 - ATYPICAL, mem, found["tr_index"], found["tt_index"])


def places_of(ids: Array, wanted: Array) -> Array:
    """Where ``wanted`` [P] stand in ``ids`` [n].

    Raises:
        ValueError: one of them is not there.
    """
    order = np.argsort(ids)
    found = order[np.searchsorted(ids, wanted, sorter=order).clip(max=len(ids) - 1)]
    if (ids[found] != wanted).any():
        raise ValueError("run and study have other samples: give both the same data and seed")
    return found
