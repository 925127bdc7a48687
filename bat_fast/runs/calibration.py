"""Whether a model is as often right as it says."""

from __future__ import annotations

from torch import Tensor

BINS = 15


def reliability(confidence: Tensor, correct: Tensor) -> tuple[list[tuple[float, float, int]], float]:
    """Bins of confidence (mean confidence, accuracy, images), and the expected calibration error (Guo et al.
    2017, arXiv:1706.04599) over `BINS` bins of equal width.

    Args:
        confidence: [N] probability of the likeliest class; one that is no number counts as 0.
        correct: [N] bool.
    """
    confidence = confidence.double().nan_to_num(0.0)
    place = (confidence * BINS).long().clamp(0, BINS - 1)
    bins, error = [], 0.0
    for number in place.unique().tolist():
        here = place == number
        n = int(here.sum())
        mean, accuracy = float(confidence[here].mean()), float(correct[here].double().mean())
        bins.append((mean, accuracy, n))
        error += abs(mean - accuracy) * n / len(correct)
    return bins, error
