"""The attacks that judge a model, by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torch import nn

from bat_fast.attacks import PGD


def make_attack(name: str, model: nn.Module, **options: Any) -> PGD:
    """The attack ``name`` on ``model``; `bat_fast.runs.metrics.metric` names the accuracy under it.

    Args:
        name: ``pgdSTEPS``, such as ``pgd20``; ``fgsm``: one step as long as the radius from the image itself.
        model: to attack.
        options: of the attack: ``eps``, ``step_size``, ``norm``, ``seed``, ...

    Raises:
        ValueError: there is no such attack, or an option is out of range.
    """
    for pattern, make in _MAKERS.items():
        if match := re.fullmatch(pattern, name):
            return make(model, options, *match.groups())
    raise ValueError(f"there is no attack {name!r}; there are pgdSTEPS, such as pgd20, and fgsm")


def _pgd(model: nn.Module, options: dict[str, Any], steps: str) -> PGD:
    return PGD(model, **options, steps=int(steps))


def _fgsm(model: nn.Module, options: dict[str, Any]) -> PGD:
    one_step = {"step_size": options["eps"], "steps": 1, "random_start": False}
    return PGD(model, **(options | one_step))


_MAKERS: dict[str, Callable[..., PGD]] = {r"pgd(\d+)": _pgd, "fgsm": _fgsm}
