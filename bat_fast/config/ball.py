"""How long a radius or a step may be, by one rule for training, evaluation and attacks."""

from __future__ import annotations

L2_MOST = 32.0
"""Beyond what any ball of the literature has, and beneath what one meant in 255ths would have."""


def length_fault(norm: str, value: float, *, width: float = 1.0, positive: bool = False) -> str | None:
    """What a length must be, what it is, and what to write instead; None where it is right.

    Args:
        norm: ``"linf"``, in which a longer one than the range of a pixel means nothing, or ``"l2"``.
        value: the length, in the unit of the pixels.
        width: of the range of a pixel.
        positive: 0 is wrong.
    """
    most = width * (1.0 if norm == "linf" else L2_MOST)
    if 0 <= value <= most and not (positive and value == 0):
        return None
    units = ""
    if width == 1 and most < value <= 255 * most:
        units = f"; pixels are in [0, 1]: write {value:g}/255"
    return f"in {'(' if positive else '['}0, {most:g}] for {norm}, got {value}{units}"
