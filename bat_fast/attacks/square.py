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
from bat_fast.attacks.search import Search, exact_logits
from bat_fast.ops._ball import bounds, unit
from bat_fast.ops.squares import ask, network_squares_, pyramids

_SHARE = 0.8  # of the area of the image, that the first squares cover
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries
_BLOCK = 100  # queries whose random numbers are drawn together


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
        """Move ``adv`` [N, C, H, W], the best so far: see `bat_fast.ops.squares.ask`."""
        if network.small is not None:
            network_squares_(adv, clean, y, numbers, **vars(self), **network.small)
            return
        ask(network.forward, adv, clean, y, numbers, **vars(self))


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
    decides = ("loss",)

    def __init__(
        self, model: nn.Module, eps: float | str = 8 / 255, *, queries: int = 5000, **options: Any
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
        shared, begun = 2 if self.norm == "linf" else 5, 0
        known = problem.progress.found(f"square {number}")
        if known is not None and known["rows"].equal(rows.cpu()):
            begun, left, draws.state = int(known["number"]), known["left"].to(left), known["chance"]
            adv = known["adv"].to(adv)
        for first, last, side in self._blocks(clean):
            if first < begun:
                continue
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
            here = {"rows": rows, "left": left, "adv": adv, "chance": draws.state}
            problem.progress.keep(f"square {number}", last, **here)
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
