"""AutoAttack: attacks without parameters one after the other, each on the images that are left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bat_fast._checks import check_labels, choice
from bat_fast._logits import missed
from bat_fast.attacks.apgd import APGD
from bat_fast.attacks.attack import Attack
from bat_fast.attacks.done import Done, of_batch
from bat_fast.attacks.fab import FAB
from bat_fast.attacks.pixels import check_batch
from bat_fast.attacks.problem import Problem
from bat_fast.attacks.room import Room
from bat_fast.attacks.search import Search, exact_logits
from bat_fast.attacks.square import Square
from bat_fast.attacks.untouched import untouched

Part = tuple[type[Search], dict[str, Any]]

_APGD_CE: Part = APGD, {"loss": "ce"}
_APGD_T: Part = APGD, {"loss": "dlr", "targets": 9}
_FAB_T: Part = FAB, {"targets": 9}
_SQUARE: Part = Square, {}

_VERSIONS: dict[str, dict[str, Part]] = {
    "standard": {"apgd-ce": _APGD_CE, "apgd-t": _APGD_T, "fab-t": _FAB_T, "square": _SQUARE},
    "plus": {
        "apgd-ce": (APGD, {"loss": "ce", "restarts": 5}),
        "apgd-dlr": (APGD, {"loss": "dlr", "restarts": 5}),
        "fab": (FAB, {"targets": 0, "restarts": 5}),
        "square": _SQUARE,
        "apgd-t": _APGD_T,
        "fab-t": _FAB_T,
    },
    "rand": {"apgd-ce": (APGD, {"loss": "ce", "eot": 20}), "apgd-dlr": (APGD, {"loss": "dlr", "eot": 20})},
}
_QUICK: dict[str, Part] = {
    "apgd-ce": (APGD, {"loss": "ce", "steps": 20}),
    "apgd-t": (APGD, {"loss": "dlr", "targets": 3, "steps": 20}),
}
VERSIONS = tuple(_VERSIONS)
MODES = ("exact", "replay", "quick")
CLEAN = "clean"
"""What breaks an image that the model misclassifies without an attack."""


FIXED = "mode replay repeats batches of the official size, and one does not fit; give a smaller batch_size"
"""Why a replay has to stop where memory runs out."""


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What AutoAttack says about each image.

    Args:
        adv: [N, C, H, W] a misclassified image of the ball, or the image itself where none was found.
        broken_by: for each image the attack that broke it, ``"clean"`` where it needed none, ``""`` where
            it is robust.
    """

    adv: Tensor
    broken_by: list[str]

    @property
    def clean(self) -> list[bool]:
        """Whether the model is right about each image as it is."""
        return [by != CLEAN for by in self.broken_by]

    @property
    def robust(self) -> list[bool]:
        """Whether no attack broke the image, and the model is right about it."""
        return [not by for by in self.broken_by]


class AutoAttack(Attack):
    """AutoAttack (Croce & Hein 2020, arXiv:2003.01690), with the official constants.

    Every break is proven by a float32 pass of the model through the stored image, which lies in the ball;
    logits that are no numbers count as broken.

    Args:
        version: ``"standard"``: APGD on cross entropy, APGD towards 9 classes, FAB towards 9 classes, Square.
            ``"plus"``: with more restarts, and APGD and FAB away from the class. ``"rand"``: for random
            models, APGD on averages of 20 gradients.
        mode: ``"exact"``: random numbers that depend on (seed, sample, draw), so verdicts do not depend on
            the batch. ``"replay"``: batches, random numbers and expressions of the official code, of which
            it repeats the verdicts. ``"quick"``: 20 steps of APGD on cross entropy, and towards 3 classes:
            an upper bound of the robust accuracy, and no AutoAttack.
        batch_size: images that are attacked together.
        model, eps, norm, precision, engine, seed, lo, hi: as in `bat_fast.attacks.Attack`.

    Raises:
        ValueError, TypeError: an argument is out of range; the message names it.

    Example:
        >>> verdicts = AutoAttack(model, eps=8 / 255).judge(x, y)
        >>> robust_accuracy = sum(verdicts.robust) / len(x)
    """

    _shown = ("eps", "norm", "version", "mode", "batch_size", "seed")
    parameter_free = True

    def __init__(
        self,
        model: nn.Module,
        eps: float | str = 8 / 255,
        *,
        version: str = "standard",
        mode: str = "exact",
        batch_size: int = 250,
        norm: str = "linf",
        precision: str | None = None,
        engine: str = "auto",
        seed: int = 0,
        lo: float = 0.0,
        hi: float = 1.0,
    ) -> None:
        super().__init__(
            model, eps, norm=norm, random_start=False, precision=precision, engine=engine, seed=seed,
            lo=lo, hi=hi,
        )  # fmt: skip
        self.version = choice("version", version, VERSIONS)
        self.mode = choice("mode", mode, MODES)
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size must be an integer >= 1, got {batch_size!r}")
        if mode != "exact" and version != "standard" and (mode, version) != ("replay", "plus"):
            raise ValueError(f"version {version!r} has no mode {mode!r}: use mode='exact'")
        self.batch_size = batch_size
        how: dict[str, Any] = {
            "norm": norm,
            "precision": precision,
            "engine": engine,
            "seed": seed,
            "lo": lo,
            "hi": hi,
        }
        self.parts: dict[str, Search] = {
            name: kind(model, eps, replay=mode == "replay", **how, **options)
            for name, (kind, options) in (_QUICK if mode == "quick" else _VERSIONS[version]).items()
        }

    def judge(
        self,
        x: Tensor,
        y: Tensor,
        index: Tensor | None = None,
        *,
        draw: int = 0,
        tell: Callable[[str, int, int, int], None] | None = None,
        room: Room | None = None,
        done: Done | None = None,
    ) -> Verdicts:
        """Attack ``x`` with one attack after the other.

        Args:
            x: [N, C, H, W] float32 pixels in [lo, hi].
            y: [N] int64 true classes.
            index: [N] int64 data set ids that key the random numbers; None numbers the images from 0.
            draw: which random numbers of these images.
            tell: called after each batch with the name of the attack, how many images it has seen, how many
                it will see, and how many are robust so far.
            room: how many images fit into memory, to share it with others; None begins with ``batch_size``.
            done: what was found before, and where to keep what is found, batch after batch, and within a
                batch run after run.

        Raises:
            ValueError: pixels outside [lo, hi], or shapes, labels or devices that do not fit.
        """
        with torch.inference_mode(False), torch.no_grad(), untouched(self.model, "eval"):
            check_batch(x, y, None, lo=self.lo, hi=self.hi)
            adv = x.detach().clamp(self.lo, self.hi)
            broken_by = [""] * len(adv)
            numbers = torch.arange(len(adv), device=adv.device)
            done = of_batch(done, draw, x, y, index)
            room = room or Room(self.batch_size, FIXED if self.mode == "replay" else "")
            for some, logits in room.over(len(adv), lambda some: exact_logits(self.model, adv[some])):
                check_labels("y", y[some], logits)
                _note(broken_by, numbers[some][missed(logits, y[some])], CLEAN)
            for name, part in self.parts.items():
                left, seen = numbers[[not by for by in broken_by]], 0
                while seen < len(left):
                    known = done.get(f"{name}/{seen}") if done else None
                    # A random model leaves others the second time: what was found is of its images alone.
                    if known is None or not known["rows"].equal(left[seen:][: len(known["rows"])].cpu()):
                        rows = left[seen : seen + room.size]
                        given = rows if index is None else index[rows]
                        inner = done and done.within(f"{name}/{seen} in part")
                        how: dict[str, Any] = {"draw": draw, "done": inner}
                        found = room.tried(partial(part, adv[rows], y[rows], None, given, **how))
                        if found is None:
                            continue
                        broken = (found != adv[rows]).flatten(1).any(1)
                        known = {"rows": rows, "broken": broken, "adv": found[broken]}
                        if done and inner:
                            done.put(f"{name}/{seen}", known)
                            inner.drop()
                    broken = known["broken"].to(adv.device)
                    rows = left[seen : seen + len(broken)][broken]
                    adv[rows] = known["adv"].to(adv.device)
                    _note(broken_by, rows, name)
                    seen += len(broken)
                    if tell is not None:
                        tell(name, seen, len(left), broken_by.count(""))
        return Verdicts(adv, broken_by)

    def run(self, adv: Tensor, problem: Problem) -> None:
        """Move ``adv`` to what breaks it; the rest stays."""
        if problem.targets is not None:
            raise ValueError("targets: AutoAttack chooses them by itself; leave them out")
        verdicts = self.judge(
            problem.clean, problem.y, problem.index, draw=problem.draw, done=problem.progress.done
        )
        adv.copy_(verdicts.adv)


def _note(broken_by: list[str], rows: Tensor, name: str) -> None:
    """Write ``name`` at the places ``rows``."""
    for row in rows.tolist():
        broken_by[row] = name
