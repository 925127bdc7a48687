"""The queries of the Square attack: their loop on any network, and on a small one in a single call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bat_fast._checks import check_number
from bat_fast._native import changed, operator
from bat_fast.ops._ball import bounds, length, per_image, unit
from bat_fast.ops._small import SmallReference, check_search

_TINY = 1e-12


def ask(
    forward: Callable[[Tensor], Tensor], adv: Tensor, clean: Tensor, y: Tensor, numbers: Tensor, *, side: int,
    norm: str, eps: float, lo: float, hi: float,
) -> None:  # fmt: skip
    """Move ``adv`` [N, C, H, W], the best so far, query after query.

    On a CPU the network sees no image that is broken, nor one that the square leaves as it was.

    Args:
        forward: images -> logits [N, K].
        adv, clean, y, side, norm, eps, lo, hi: as in `network_squares_`.
        numbers: [N, queries, 2 + C], in l2 [N, queries, 5 + C], in [0, 1).
    """
    best = margin(forward(adv), y)
    limits = bounds(clean, eps, lo, hi)
    pattern = pyramids(side, adv) if norm == "l2" else None
    windows = Windows(numbers[:, :, :2], side, adv)
    others = None if pattern is None else Windows(numbers[:, :, 2:4], side, adv)
    up = numbers[:, :, 2 if pattern is None else 5 :, None, None] > 0.5
    for number in range(numbers.shape[1]):
        if pattern is None or others is None:
            trial = torch.where(windows.square(number), torch.where(up[:, number], *limits[::-1]), adv)
        else:
            bump = windows.stamped(number, pattern, numbers[:, number, 4] > 0.5)
            bump = torch.where(up[:, number], bump, -bump)
            away = _bumped(adv - clean, bump, windows.square(number), others.square(number), eps)
            trial = (clean + unit(away, "l2") * eps).clamp(lo, hi)
        if adv.is_cpu:
            rows = ((trial != adv).flatten(1).any(1) & (best > 0)).nonzero().squeeze(1)
            if len(rows):
                value = margin(forward(trial[rows]), y[rows])
                better = value < best[rows]
                rows = rows[better]
                adv[rows], best[rows] = trial[rows], value[better]
            continue
        value = margin(forward(trial), y)
        better = (value < best) & (best > 0)
        adv.copy_(torch.where(per_image(better, adv), trial, adv))
        best = torch.where(better, value, best)


def _bumped(away: Tensor, bump: Tensor, first: Tensor, second: Tensor, eps: float) -> Tensor:
    """``away`` where what is in the ``second`` square has moved into the ``first``, with ``bump``."""
    inside = away * first
    budget = energy(away * (first | second)).square()
    unused = (eps**2 - per_image(length(away, "l2").square(), away)).clamp(min=0.0)
    bump = bump + inside / (_TINY + energy(inside))
    bump = bump / (_TINY + energy(bump)) * (unused / away.shape[1] + budget).sqrt()
    return torch.where(first, bump, away * ~second)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """How far the logit of ``y`` [N] is above others in ``logits`` [N, K]; -inf where one is no number."""
    column = y[:, None]
    others = logits.scatter(1, column, -torch.inf).amax(1)
    difference = logits.gather(1, column).squeeze(1) - others
    return torch.where(difference.isnan(), -torch.inf, difference)


class Windows:
    """Squares at random places, which never touch the last row or column, as in the official code.

    Args:
        chance: [N, queries, 2] in [0, 1).
        side: of the squares.
        images: [N, C, H, W].
    """

    def __init__(self, chance: Tensor, side: int, images: Tensor) -> None:
        self._places, self._inside = [], []
        for axis, size in enumerate(images.shape[2:]):
            first = (chance[:, :, axis, None] * (size - side)).long()
            place = torch.arange(size, device=images.device) - first  # [N, queries, size]
            self._places.append(place.clamp(0, side - 1))
            self._inside.append((place >= 0) & (place < side))

    def square(self, number: int) -> Tensor:
        """[N, 1, H, W] bool: the windows of a query."""
        down, across = (inside[:, number] for inside in self._inside)
        return (down[:, :, None] & across[:, None, :])[:, None]

    def stamped(self, number: int, pattern: Tensor, turned: Tensor) -> Tensor:
        """[N, 1, H, W]: ``pattern`` [2, side, side] in the window, the second where ``turned`` [N] bool."""
        down, across = (place[:, number] for place in self._places)
        values = pattern[turned.long()[:, None, None], down[:, :, None], across[:, None, :]]
        return values[:, None] * self.square(number)


def pyramids(side: int, like: Tensor) -> Tensor:
    """[2, side, side]: two bumps of opposite sign above each other, and beside each other; of norm 1."""
    upper = side // 2
    both = torch.cat([_pyramid(upper, side, like), -_pyramid(side - upper, side, like)])
    both = both / both.square().sum().sqrt()
    return torch.stack([both, both.T])


def _pyramid(rows: int, columns: int, like: Tensor) -> Tensor:
    """[rows, columns]: falls off from the middle in rectangles, of norm 1."""
    down = torch.arange(rows, device=like.device)[:, None] - rows // 2
    across = torch.arange(columns, device=like.device) - columns // 2
    ring = torch.maximum(down.abs(), across.abs())
    bump = torch.zeros(rows, columns, dtype=like.dtype, device=like.device)
    for number in range(max(rows, columns) // 2 + 1):
        bump += (ring <= number) / (number + 1) ** 2
    return bump / bump.square().sum().sqrt()


def energy(x: Tensor) -> Tensor:
    """The l2 norm [N, C, 1, 1] of each channel of ``x`` [N, C, H, W]."""
    return x.square().sum((-2, -1), keepdim=True).sqrt()


@operator(
    "network_squares_(Tensor(a!) adv, Tensor clean, Tensor y, Tensor numbers, Tensor? bumps, Tensor plan,"
    " Tensor weights, int classes, int side, float eps, float lo, float hi) -> ()",
    fake=lambda *_: None,
)
def _squares_reference(
    adv: Tensor, clean: Tensor, y: Tensor, numbers: Tensor, bumps: Tensor | None, plan: Tensor,
    weights: Tensor, classes: int, side: int, eps: float, lo: float, hi: float,
) -> None:  # fmt: skip
    network, norm = SmallReference(plan, weights, classes), "linf" if bumps is None else "l2"
    ask(network.forward, adv, clean, y, numbers, side=side, norm=norm, eps=eps, lo=lo, hi=hi)


def network_squares_(
    adv: Tensor,
    clean: Tensor,
    y: Tensor,
    numbers: Tensor,
    *,
    plan: Tensor,
    weights: Tensor,
    classes: int,
    side: int,
    norm: str = "linf",
    eps: float,
    lo: float = 0.0,
    hi: float = 1.0,
) -> Tensor:
    """Queries of the Square attack (Andriushchenko et al. 2020, arXiv:1912.00049) on a small network.

    In place: a query puts a square at the ends of the ball, in l2 moves the perturbation of one square into
    another, and is kept where the margin shrinks. An image is done when it is misclassified. The network sees
    no square that changes nothing. No image's result depends on another.

    Args:
        adv: [N, C, H, W] the best so far, float32 or float64; becomes the best after the queries.
        clean: centre of the ball; shape and dtype of ``adv``.
        y: [N] int64 true classes.
        numbers: [N, queries, 2 + C] float32 in [0, 1): place of the square, and for each channel the end; in
            l2 [N, queries, 5 + C]: both places, which bump, and for each channel its sign.
        plan, weights, classes: as in `bat_fast.ops.network.network_gradient`.
        side: of the squares, in pixels, in [1, min(H, W)].
        norm: ``"linf"`` or ``"l2"``.
        eps, lo, hi: radius of the ball, and range of a pixel.

    Returns:
        ``adv`` itself.

    Raises:
        ValueError, TypeError, RuntimeError: an argument or the plan does not fit.
    """
    check_search(adv, clean, y, plan, weights, classes, norm, eps, lo, hi)
    check_number("side", side, 1, min(adv.shape[2:]))
    shared = 2 if norm == "linf" else 5
    fits = numbers.dim() == 3 and (len(numbers), numbers.shape[2]) == (len(adv), shared + adv.shape[1])
    if not fits or numbers.dtype != torch.float32 or not numbers.is_cpu:
        raise ValueError(
            f"numbers must be [N, queries, {shared} + C] float32, got {list(numbers.shape)} {numbers.dtype}"
        )
    if numbers.numel():
        least, most = numbers.aminmax()
        if not (least >= 0 and most < 1):  # a place would lie outside the image
            raise ValueError("numbers must lie in [0, 1)")
    bumps = None if norm == "linf" else pyramids(side, adv)
    torch.ops.bat_fast.network_squares_(
        adv, clean, y, numbers, bumps, plan, weights, classes, side, eps, lo, hi
    )
    return changed(adv)
