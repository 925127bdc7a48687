"""Intervals around what was counted or repeated."""

from __future__ import annotations

import math
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple

from bat_fast.runs.proportion import wilson

__all__ = ["Mean", "mean_of", "t_quantile", "wilson"]

_T95 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
)  # fmt: skip
_Z = NormalDist().inv_cdf(0.975)


class Mean(NamedTuple):
    """A mean over repetitions and the half width of its 95 % interval, None for a single one."""

    value: float
    half_width: float | None
    n: int


def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, to 4 digits: between -t and t lie 95 %.

    Above 20 degrees of freedom it is the expansion of Cornish and Fisher about the normal quantile.

    Args:
        freedom: degrees of freedom, >= 1.
    """
    if freedom <= len(_T95):
        return _T95[freedom - 1]
    first, second = (_Z**3 + _Z) / 4, (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / 96
    third = (3 * _Z**7 + 19 * _Z**5 + 17 * _Z**3 - 15 * _Z) / 384
    return _Z + first / freedom + second / freedom**2 + third / freedom**3


def mean_of(values: list[float]) -> Mean:
    """Mean and 95 % t-interval of independent repetitions, such as seeds."""
    if len(values) < 2:
        return Mean(fmean(values), None, len(values))
    width = t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Mean(fmean(values), width, len(values))
