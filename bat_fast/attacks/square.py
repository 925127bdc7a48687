"""Square attack: random search which asks for logits alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bat_fast._logits import missed
from bat_fast.attacks.draws import Draws
from bat_fast.attacks.engine import AttackedModel
from bat_fast.attacks.problem import Problem
from bat_fast.attacks.search import Search, bounds, exact_logits, length, unit
from bat_fast.attacks.step import per_image

_SHARE = 0.8  # of the area of the image, that the first squares cover
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries
_BLOCK = 100  # queries whose random numbers are drawn together
_TINY = 1e-12


@dataclass(frozen=True)
class Queries:
    """A few queries with squares of one size (see `bat_fast.attacks.engine.Loop`).

    Args:
        norm, eps, lo, hi: as in `Square`.
        side: of the squares, in pixels.
    """

    norm: str
    eps: float
    lo: float
    hi: float
    side: int

    def __call__(
        self, network: AttackedModel, *, adv: Tensor, clean: Tensor, y: Tensor, numbers: Tensor
    ) -> None:
        """Move ``adv`` [N, C, H, W], the best so far, query after query.

        On a CPU the network sees no image that is broken, nor one that the square leaves as it was.

        Args:
            network: of which logits are asked.
            adv: as above.
            clean: [N, C, H, W] centre of the ball.
            y: [N] int64 true classes.
            numbers: [N, queries, 2 + C], in l2 [N, queries, 5 + C], in [0, 1).
        """
        best = margin(network.forward(adv), y)
        limits = bounds(clean, self.eps, self.lo, self.hi)
        pattern = pyramids(self.side, adv) if self.norm == "l2" else None
        windows = Windows(numbers[:, :, :2], self.side, adv)
        others = None if pattern is None else Windows(numbers[:, :, 2:4], self.side, adv)
        up = numbers[:, :, 2 if pattern is None else 5 :, None, None] > 0.5
        for number in range(numbers.shape[1]):
            if pattern is None or others is None:
                trial = torch.where(windows.square(number), torch.where(up[:, number], *limits[::-1]), adv)
            else:
                bump = windows.stamped(number, pattern, numbers[:, number, 4] > 0.5)
                bump = torch.where(up[:, number], bump, -bump)
                trial = self._bumped(adv, clean, bump, windows.square(number), others.square(number))
            if adv.is_cpu:
                rows = ((trial != adv).flatten(1).any(1) & (best > 0)).nonzero().squeeze(1)
                if len(rows):
                    value = margin(network.forward(trial[rows]), y[rows])
                    better = value < best[rows]
                    rows = rows[better]
                    adv[rows], best[rows] = trial[rows], value[better]
                continue
            value = margin(network.forward(trial), y)
            better = (value < best) & (best > 0)
            adv.copy_(torch.where(per_image(better, adv), trial, adv))
            best = torch.where(better, value, best)

    def _bumped(self, adv: Tensor, clean: Tensor, bump: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """``adv`` where the perturbation of the ``second`` square moves into the ``first``, with ``bump``."""
        away = adv - clean
        inside = away * first
        budget = energy(away * (first | second)).square()
        unused = (self.eps**2 - per_image(length(away, "l2").square(), away)).clamp(min=0.0)
        bump = bump + inside / (_TINY + energy(inside))
        bump = bump / (_TINY + energy(bump)) * (unused / adv.shape[1] + budget).sqrt()
        away = torch.where(first, bump, away * ~second)
        return (clean + unit(away, "l2") * self.eps).clamp(self.lo, self.hi)


class Square(Search):
    """The Square attack (Andriushchenko et al. 2020, arXiv:1912.00049), as in the official AutoAttack.

    It needs no gradient, so it also breaks models that hide theirs. Every query tries a square of pixels at
    an end of the ball (in l2: moves the perturbation between two squares) and keeps it where the margin
    shrinks.

    Args:
        queries: a run, >= 1.
        model, eps, restarts, norm, precision, engine, seed, replay, lo, hi: as in
            `bat_fast.attacks.search.Search`.

    Raises:
        ValueError, TypeError: an argument is out of range; the message names it.
    """

    _shown = ("eps", "norm", "queries", "restarts", "seed")

    def __init__(
        self, model: nn.Module, eps: float = 8 / 255, *, queries: int = 5000, **options: Any
    ) -> None:
        super().__init__(model, eps, **options)
        if self.targets:
            raise ValueError("targets: the Square attack moves away from y alone; leave it 0")
        if not isinstance(queries, int) or queries < 1:
            raise ValueError(f"queries must be an integer >= 1, got {queries!r}")
        self.queries = queries

    def attempt(self, problem: Problem, draws: Draws, rows: Tensor, number: int) -> Tensor:
        """One run."""
        clean, y = problem.clean, problem.y
        if clean.dim() != 4:
            raise ValueError(
                f"x must be [N, C, H, W], the Square attack needs a plane; got {list(clean.shape)}"
            )
        adv = self._begin(clean, draws, rows, f"square {number}")
        left = torch.arange(len(adv), device=adv.device)
        shared = 2 if self.norm == "linf" else 5
        for first, last, side in self._blocks(clean):
            if self.replay or (first and first % (10 * _BLOCK) == 0):
                left = left[~missed(exact_logits(self.model, adv[left]), y[left])]
                if not len(left):
                    break
            use = f"square {number} {first}"
            # The official code draws one place and one colour for a batch, in l2 a sign for each image left.
            common, own = (shared + clean.shape[1], 0) if self.norm == "linf" else (shared, clean.shape[1])
            numbers = draws.uniform(rows[left], last - first, common, own, use)
            some = adv[left]
            loop = Queries(self.norm, self.eps, self.lo, self.hi, side)
            self.iterate(loop, adv=some, clean=clean[left], y=y[left], numbers=numbers)
            adv[left] = some
        return adv

    def _begin(self, clean: Tensor, draws: Draws, rows: Tensor, use: str) -> Tensor:
        """Vertical stripes at the ends of the ball; in l2 a grid of bumps."""
        n, channels, height, width = clean.shape
        if self.norm == "linf":
            up = draws.uniform(rows, 1, 0, channels * width, use).view(n, channels, 1, width) > 0.5
            low, high = bounds(clean, self.eps, self.lo, self.hi)
            return torch.where(up, high, low)
        side = max(height // 5, 1)
        edge = max((height - 5 * side) // 2, 0)
        places = [
            (edge + i * side, edge + j * side) for i in range(height // side) for j in range(width // side)
        ]
        numbers = draws.uniform(rows, len(places), 1, channels, use)
        both, away = pyramids(side, clean), torch.zeros_like(clean)
        for number, (top, left) in enumerate(places):
            tile = away[:, :, top : top + side, left : left + side]
            bump = both[(numbers[:, number, 0] > 0.5).long(), None, : tile.shape[2], : tile.shape[3]]
            tile += bump * torch.where(numbers[:, number, 1:] > 0.5, 1.0, -1.0)[:, :, None, None]
        return (clean + unit(away, "l2") * self.eps).clamp(self.lo, self.hi)

    def _blocks(self, clean: Tensor) -> list[tuple[int, int, int]]:
        """Queries from, to, and the side of their squares."""
        height, width = clean.shape[2:]
        most = 1 if self.replay and self.norm == "l2" else _BLOCK
        found, first = [], 0
        while first < self.queries:
            halvings = sum(first > after for after in _HALVED_AFTER)
            end = min([after + 1 for after in _HALVED_AFTER if after >= first] + [self.queries])
            last = min(end, self.queries, first + most - first % most)
            side = max(
                round(math.sqrt(_SHARE / 2**halvings * height * width)), 1 if self.norm == "linf" else 3
            )
            side += self.norm == "l2" and side % 2 == 0
            found.append((first, last, min(side, height, width)))
            first = last
        return found


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
