"""Where an attack begins."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bat_fast import ops
from bat_fast.ops._ball import per_image

_GAUSSIAN_STD = 0.001  # of the start of TRADES, in pixels
_FURTHEST = 8.0  # radii from the image: no start is there, as its normal numbers end at 5.8


def begin(
    clean: Tensor,
    kind: bool | str,
    norm: str,
    radius: float | Tensor,
    *,
    cut: bool,
    lo: float,
    hi: float,
    **keys: Any,
) -> Tensor:
    """The start of an attack, a new [N, C, H, W] tensor.

    Args:
        clean: [N, C, H, W] images.
        kind: as ``random_start`` of `bat_fast.attacks.Attack`.
        norm: of the ball.
        radius: of the ball to draw from, for all images or [N].
        cut: leave the start in [lo, hi].
        lo, hi: range of a pixel.
        keys: ``seed``, ``index`` and ``draw`` of `bat_fast.ops.random_start`.
    """
    if not kind:
        return clean.clamp(lo, hi)
    if isinstance(radius, Tensor) and kind != "gaussian":
        # The operator takes one radius: a point of the ball of radius 1, drawn out for each image.
        unit = ops.random_start(torch.zeros_like(clean), eps=1.0, norm=norm, lo=-1.0, hi=1.0, **keys)
        adv = unit.mul_(per_image(radius, clean)).add_(clean)
        return adv.clamp_(lo, hi) if cut else adv
    reach = _GAUSSIAN_STD if kind == "gaussian" else float(radius)
    beyond = 0.0 if cut else _FURTHEST * reach
    return ops.random_start(
        clean,
        eps=reach,
        norm="gaussian" if kind == "gaussian" else norm,
        lo=lo - beyond,
        hi=hi + beyond,
        **keys,
    )
