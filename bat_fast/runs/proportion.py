"""What a share of some images says about all images."""

from __future__ import annotations

import math
from statistics import NormalDist

_Z = NormalDist().inv_cdf(0.975)


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a probability of which ``share`` was seen in ``n`` trials (Wilson 1927)."""
    spread = _Z**2 / n
    centre = (share + spread / 2) / (1 + spread)
    width = _Z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return max(0.0, centre - width), min(1.0, centre + width)
