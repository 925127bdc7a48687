"""The names of accuracies, as ``metrics.jsonl`` and ``results.json`` have them: ``SPLIT/ATTACK_acc``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_TITLES = {
    "aa": "AutoAttack",
    "aa_quick": "AutoAttack, quick (upper bound)",
    "aa_plus": "AutoAttack, plus",
    "aa_rand": "AutoAttack, rand",
    "apgd_ce": "APGD-CE",
    "apgd_dlr": "APGD-DLR",
    "apgd_t": "APGD-T",
    "fab_t": "FAB-T",
    "worst": "worst of all",
}
_SUFFIXES = {"any": "any step", "targeted": "targeted"}


def metric(split: str, attack: str) -> str:
    """The accuracy on ``split`` under ``attack``; the attack ``clean`` is none."""
    return f"{split}/{attack}_acc"


def attacks_on(split: str, names: Iterable[str]) -> list[str]:
    """The attacks on ``split`` that have a metric among ``names``, in their order."""
    found = (re.fullmatch(rf"{split}/(.+)_acc", name) for name in names)
    return [match[1] for match in found if match]


def title(attack: str) -> str:
    """An attack as people write it: ``PGD-20`` for ``pgd20``."""
    if attack in _TITLES:
        return _TITLES[attack]
    match = re.fullmatch(r"([a-z]+)(\d+)(?:x(\d+))?((?:_any|_targeted|_step[\d.]+)*)", attack)
    if match is None:
        return attack
    more = [f"{match[3]} starts"] if match[3] else []
    more += [_SUFFIXES.get(suffix, f"step {suffix[4:]}") for suffix in match[4].split("_")[1:]]
    return ", ".join([f"{match[1].upper()}-{match[2]}", *more])


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """The metrics of a line of ``metrics.jsonl``; one that is not finite is ``null`` there, and left out."""
    return {name: value for name, value in row.items() if name != "epoch" and isinstance(value, (int, float))}
