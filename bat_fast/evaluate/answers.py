"""What a model answers to a group of images, and to what an attack makes of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bat_fast.attacks import Attack, AutoAttack
from bat_fast.attacks.autoattack import CLEAN
from bat_fast.attacks.room import Room
from bat_fast.attacks.search import exact_logits
from bat_fast.batch import Batch
from bat_fast.evaluate.kept import Kept

Tell = Callable[[str, int, int, int], None]

NO_ANSWER = -1
"""The class of an image for which a model gives NaN: none."""
_SLACK = {"linf": 1e-6, "l2": 1e-5}  # of a radius, for the rounding of float32


def answers(model: nn.Module, x: Tensor, room: Room) -> dict[str, Tensor]:
    """By a float32 pass for each of ``x`` [N, C, H, W], on the CPU: ``answer`` [N] int64, the class, which is
    `NO_ANSWER` where a logit is no number; ``confidence`` [N] float32, its probability."""
    parts = [found for _, found in room.over(len(x), lambda some: _answers(model, x[some]))]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def words_of(name: str, attack: Attack) -> list[str]:
    """What the numbers of ``broken_by`` mean: nothing broke the image, it needed no attack, the attacks."""
    return ["", CLEAN, *(attack.parts if isinstance(attack, AutoAttack) else [name])]


def answers_under(
    model: nn.Module,
    attack: Attack,
    batch: Batch,
    room: Room,
    kept: Kept,
    *,
    tell: Tell | None = None,
    images: bool = False,
) -> dict[str, Tensor]:
    """As `answers`, for what ``attack`` makes of a batch.

    Args:
        model: in eval mode.
        attack: on it.
        batch: N >= 1 images.
        room: how many fit into memory.
        kept: where attacks keep what they have found so far.
        tell: as in `bat_fast.attacks.AutoAttack.judge`.
        images: also return ``adv`` [N, C, H, W], which are checked to lie in the ball.

    Returns:
        Of AutoAttack there is also ``broken`` [N], numbers of `words_of`.
    """
    if isinstance(attack, AutoAttack):
        verdicts = attack.judge(batch.x, batch.y, batch.index, tell=tell, room=room, done=kept)
        words = words_of("", attack)
        found = answers(model, verdicts.adv, room)
        found["broken"] = torch.tensor([words.index(by) for by in verdicts.broken_by])
        return found | (_checked(attack, verdicts.adv, batch.x) if images else {})

    def part(some: slice) -> dict[str, Tensor]:
        x = batch.x[some]
        inner = kept.within(f"{some.start}-{some.stop}")
        adv = attack(x, batch.y[some], index=batch.index[some], draw=0, done=inner)
        return _answers(model, adv) | (_checked(attack, adv, x) if images else {})

    parts = [answer for _, answer in room.over(len(batch.y), part)]
    return {name: torch.cat([answer[name] for answer in parts]) for name in parts[0]}


def _answers(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    logits = exact_logits(model, x)
    top, label = logits.max(1)
    confidence = logits.softmax(1).amax(1).nan_to_num(0.0)
    return {"answer": label.masked_fill(top.isnan(), NO_ANSWER).cpu(), "confidence": confidence.cpu()}


def _checked(attack: Attack, adv: Tensor, x: Tensor) -> dict[str, Tensor]:
    away = (adv.double() - x.double()).flatten(1)
    size = away.abs().amax(1) if attack.norm == "linf" else away.square().sum(1).sqrt()
    slack = _SLACK[attack.norm] * max(1.0, attack.eps)
    if (
        bool((size > attack.eps + slack).any())
        or float(adv.min()) < attack.lo
        or float(adv.max()) > attack.hi
    ):
        raise RuntimeError(f"{attack!r} left its ball, by {float(size.max()) - attack.eps:.2g}: report this")
    return {"adv": adv.cpu()}
