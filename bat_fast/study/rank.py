"""Rank correlation, with an interval for the chance of which samples there are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bat_fast._random import seed_of
from bat_fast.study.sealed_arrays import Array

RESAMPLES = 1000


class Correlation(NamedTuple):
    """A coefficient and its 95 % interval; NaN where a side is constant."""

    value: float
    low: float
    high: float
    n: int


def ranks(values: Array) -> Array:
    """Ranks from 0 of ``values`` [n], equal ones sharing the mean of theirs, float64."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: Array = (last - (counts + 1) / 2)[inverse]
    return mean


def spearman(first: Array, second: Array, *, resamples: int = RESAMPLES, seed: int = 0) -> Correlation:
    """Spearman's rank correlation with a percentile interval of the bootstrap over samples (Efron 1979).

    A resample takes the ranks that the samples have among all, which saves a sort each and changes an
    interval by less than its own chance. Pairs with a NaN are left out.

    Args:
        first, second: [n].
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    there = ~(np.isnan(first) | np.isnan(second))
    a, b = ranks(first[there]), ranks(second[there])
    n = len(a)
    whole = _pearson(a, b) if n > 1 else float("nan")
    if n < 3 or np.isnan(whole):
        return Correlation(whole, float("nan"), float("nan"), n)
    rng = np.random.default_rng(seed_of("bootstrap", seed))
    found = []
    for _ in range(resamples):
        rows = rng.integers(0, n, n)
        found.append(_pearson(a[rows], b[rows]))
    low, high = np.nanquantile(found, (0.025, 0.975))
    return Correlation(whole, float(low), float(high), n)


def _pearson(a: Array, b: Array) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else float("nan")
