"""Memorisation and influence out of what k models get right (Feldman and Zhang 2020, arXiv:2008.03703).

Model ``l`` saw the samples with ``S_li = 1`` and is right about image ``j`` where ``C_lj = 1``. Then::

    mem_i  = mean_l [C_li | S_li = 1] - mean_l [C_li | S_li = 0]          of training sample i
    infl_ij = mean_l [C_lj | S_li = 1] - mean_l [C_lj | S_li = 0]         of i on test image j
    se = sqrt(p_in (1 - p_in) / n_in + p_out (1 - p_out) / n_out)

both for clean and for attacked images. A standard error is 0 where all models agree, which k models cannot
tell from a probability of less than about 1/k. Everything is packed bits of [k, n / 8] bytes and blocks of
float32; nothing of [n, n] is ever made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bat_fast.study.sealed_arrays import Array

ROWS = 512  # training samples of a block of influence
MEMORISED, INFLUENTIAL = 0.25, 0.15  # of the pairs that are listed, as published


class Difference(NamedTuple):
    """Shares of right answers with a sample and without it, and how far apart they are."""

    value: Array
    """With minus without; NaN where no model, or every model, saw the sample."""
    error: Array
    """Its standard error."""
    seen: Array
    """Share of right answers of the models that saw the sample."""
    unseen: Array
    """That of the models that did not."""


class Pairs(NamedTuple):
    """Test images that a memorised training sample decides, in falling order of influence."""

    train: Array
    """[P] places in the training split."""
    test: Array
    """[P] places in the test split."""
    influence: Array
    """[P] float32."""


def columns(packed: Array, places: Array) -> Array:
    """The bits of some samples, [k, P] uint8.

    Args:
        packed: [k, ceil(n / 8)] uint8.
        places: [P] int64, below n.
    """
    return packed[:, places >> 3] >> (7 - (places & 7)).astype(np.uint8) & 1


def memorisation(subsets: Array, correct: Array, count: int) -> Difference:
    """Memorisation of each training sample, [count] float64.

    Args:
        subsets: [k, ceil(count / 8)] uint8, packed bits: who saw what.
        correct: likewise: what is right on the same samples.
        count: number of training samples.
    """
    parts = []
    for start in range(0, count, ROWS):
        places = np.arange(start, min(count, start + ROWS))
        seen, right = columns(subsets, places), columns(correct, places)
        inside = seen.sum(0, dtype=np.int64)
        both, every = (seen & right).sum(0, dtype=np.int64), right.sum(0, dtype=np.int64)
        parts.append(_difference(both, inside, every - both, len(seen) - inside))
    return Difference(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def influence(subsets: Array, correct: Array, train: Array, test: Array) -> Difference:
    """Influence of some training samples on some test images, [P, Q] float32 each.

    Args:
        subsets: [k, ceil(n / 8)] uint8, packed bits: who saw what.
        correct: [k, ceil(m / 8)] uint8, what is right on the test images.
        train: [P] int64, places in the training split.
        test: [Q] int64, places in the test split.
    """
    return _influence(subsets, columns(correct, test).astype(np.float32), train)


def _influence(subsets: Array, right: Array, train: Array) -> Difference:
    seen = columns(subsets, train).astype(np.float32)
    inside = seen.sum(0)[:, None]  # sums of 0 and 1 are exact in float32
    both, every = seen.T @ right, right.sum(0)[None]
    return _difference(both, inside, every - both, len(seen) - inside)


def by_class(
    subsets: Array, correct: Array, train_labels: Array, test_labels: Array
) -> Iterator[tuple[int, Array, Array, Array]]:
    """Influence within each class: (class, places in train [P], places in test [Q], values [P, Q])."""
    for label in np.unique(train_labels).tolist():
        train, test = (np.flatnonzero(each == label) for each in (train_labels, test_labels))
        yield label, train, test, influence(subsets, correct, train, test).value


def strong_pairs(
    subsets: Array, correct: Array, count: int, mem: Array, *, most: int = 100_000,
    memorised: float = MEMORISED, influential: float = INFLUENTIAL,
) -> Pairs:  # fmt: skip
    """The pairs with ``mem >= memorised`` and ``infl >= influential``, the strongest first.

    Args:
        subsets, correct: of `influence`.
        count: number of test images.
        mem: [n] memorisation of the training samples.
        most: how many are kept.
        memorised, influential: thresholds.
    """
    right = columns(correct, np.arange(count)).astype(np.float32)
    rows = np.flatnonzero(np.nan_to_num(mem, nan=-1.0) >= memorised)
    found = []
    for start in range(0, len(rows), ROWS):
        block = rows[start : start + ROWS]
        values = _influence(subsets, right, block).value
        i, j = np.nonzero(values >= influential)
        found.append((block[i], j, values[i, j]))
    if not found:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    train, test, value = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(-value, kind="stable")[:most]
    return Pairs(train[order], test[order], value[order])


def _difference(in_right: Array, n_in: Array, out_right: Array, n_out: Array) -> Difference:
    with np.errstate(invalid="ignore", divide="ignore"):
        p_in, p_out = in_right / n_in, out_right / n_out
        error = np.sqrt(p_in * (1 - p_in) / n_in + p_out * (1 - p_out) / n_out)
    return Difference(p_in - p_out, error, p_in, p_out)


def worst_error(k: int, ratio: float) -> float:
    """The largest standard error that k models can have: that of probabilities of 1/2."""
    return 0.5 * math.sqrt(1 / (ratio * k) + 1 / ((1 - ratio) * k))


def models_needed(threshold: float, ratio: float, sigmas: float = 2.7) -> int:
    """The k for which a value at ``threshold`` is so many standard errors from 0, even in the worst case."""
    return math.ceil((sigmas / threshold) ** 2 * 0.25 * (1 / ratio + 1 / (1 - ratio)))


def bytes_needed(k: int, train: int, test: int, largest_class: tuple[int, int]) -> int:
    """An upper bound of the memory that a study's estimates take at once, in bytes.

    Args:
        k: models.
        train, test: numbers of samples.
        largest_class: of them, those of the largest class.
    """
    packed = k * (3 * -(-train // 8) + 2 * -(-test // 8))
    rows = min(train, ROWS)

    def influence_of(some: int, images: int) -> int:  # bits as bytes and as float32; what a difference takes
        return 8 * k * (some + images) + 40 * some * images

    blocks = max(influence_of(rows, test), influence_of(*largest_class), 8 * k * rows)
    return packed + blocks + 80 * train
