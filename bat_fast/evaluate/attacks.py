"""The attacks that judge a model, by name."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from bat_fast.attacks import Attack, by_name


def make_attack(name: str, model: nn.Module, *, step_size: float | None = None, **options: Any) -> Attack:
    """The attack ``name`` on ``model``; `bat_fast.runs.metrics.metric` names the accuracy under it.

    Args:
        name: one of `bat_fast.attacks.by_name`, with the number of steps behind it where it takes any:
            ``pgd20``, ``fgsm``.
        model: to attack.
        step_size: step in pixels, for the attacks whose number of steps is named.
        options: of the attack: ``eps``, ``norm``, ``seed``, ...

    Raises:
        ValueError: there is no such attack, or an option is out of range.
    """
    kinds = by_name()
    match = re.fullmatch(r"(.+?)(\d*)", name)
    if match is None or match[1] not in kinds:
        raise ValueError(f"there is no attack {name!r}; there are {', '.join(kinds)} (pgd20 takes 20 steps)")
    how: dict[str, Any] = {"steps": int(match[2])} if match[2] else {}
    if match[2] and not kinds[match[1]].parameter_free:
        how["step_size"] = step_size
    try:
        return kinds[match[1]](model, **how, **options)
    except TypeError as error:
        if "multiple values" not in str(error):
            raise
        raise ValueError(
            f"attack {name!r}: {match[1]} has its own number of steps, so leave it out"
        ) from None
