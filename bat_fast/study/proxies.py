"""What one run says about memorisation, for a fraction of the cost of k models.

From the margins, losses and q that a run has recorded of each sample in each epoch::

    forgetting      number of epochs in which a sample is wrong that was right the epoch before; all
                    epochs for one that was never right (Toneva et al. 2019, arXiv:1812.05159)
    first_learnt    first epoch, from 1, in which it is right; one more than there are if in none
    aum             mean over the epochs of  z_y - max_{t != y} z_t  (Pleiss et al. 2020, arXiv:2001.10528)
    loss_sum        sum over the epochs of the cross-entropy
    confidence      mean over the epochs of  p_y - max_{t != y} p_t
    probability     mean over the epochs of  p_y, the learning speed of Jiang et al. 2021 (arXiv:2002.03206)
    q               mean over the epochs of  max_{t != y} p_t, the poisoning score of BAT

and, where it was measured, the curvature of `bat_fast.study.curvature`, a mean over the epochs too.
``z`` are the logits that the method fits, of the attacked image where it attacks; right is a margin above 0.
"""

from __future__ import annotations

import warnings

import numpy as np

from bat_fast.study.sealed_arrays import Array

HARDER = {
    "forgetting": 1,
    "first_learnt": 1,
    "aum": -1,
    "loss_sum": 1,
    "confidence": -1,
    "probability": -1,
    "q": 1,
    "curvature": 1,
}
"""1 where a larger value is of a harder sample, -1 where a smaller one is."""


def proxies(margin: Array, loss: Array, q: Array) -> dict[str, Array]:
    """All of them, each [n]; epochs in which a sample was not met do not count.

    Args:
        margin, loss, q: [epochs, n], NaN where a sample was not met.
    """
    epochs = len(margin)
    right, met = margin > 0, ~np.isnan(margin)
    fell = right[:-1] & ~right[1:] & met[1:]
    learnt = right.any(0)
    label = np.exp(-loss)
    return {
        "forgetting": np.where(learnt, fell.sum(0), epochs).astype(np.float64),
        "first_learnt": np.where(learnt, right.argmax(0) + 1, epochs + 1).astype(np.float64),
        "aum": _mean(margin),
        "loss_sum": _mean(loss) * epochs,
        "confidence": _mean(label - q),
        "probability": _mean(label),
        "q": _mean(q),
    }


def _mean(values: Array) -> Array:
    """The mean over the epochs that have a value; NaN where none has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        mean: Array = np.asarray(np.nanmean(values, 0, dtype=np.float64))
    return mean
