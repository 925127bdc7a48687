"""The names of accuracies, as ``metrics.jsonl`` and ``results.json`` have them: ``SPLIT/ATTACK_acc``."""

from __future__ import annotations

import re
from collections.abc import Iterable

_TITLES = {"aa": "AutoAttack", "aa_quick": "AutoAttack, quick (upper bound)"}


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
    match = re.fullmatch(r"([a-z]+)(\d+)", attack)
    return f"{match[1].upper()}-{match[2]}" if match else attack
