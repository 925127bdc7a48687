"""Attacks: the inner maximisation of adversarial training.

A new attack is a new module of this package that holds one class derived from
`bat_fast.attacks.attack.Attack`, and no list to edit: its name is that of the module.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from inspect import isabstract

from bat_fast.attacks.apgd import APGD
from bat_fast.attacks.attack import Attack
from bat_fast.attacks.autoattack import AutoAttack, Verdicts
from bat_fast.attacks.fab import FAB
from bat_fast.attacks.fgsm import FGSM
from bat_fast.attacks.goal import report_labels
from bat_fast.attacks.loss import AttackLoss
from bat_fast.attacks.pgd import PGD
from bat_fast.attacks.square import Square
from bat_fast.attacks.step import default_step_size
from bat_fast.attacks.targets import random_targets
from bat_fast.attacks.untouched import kept_buffers, untouched

__all__ = [
    "APGD", "FAB", "FGSM", "PGD", "Attack", "AttackLoss", "AutoAttack", "Square", "Verdicts", "by_name",
    "default_step_size", "frozen", "kept_buffers",
    "random_targets", "report_labels", "untouched",
]  # fmt: skip

frozen = untouched
"""The first name of `untouched`, kept for the programs that use it."""


def by_name() -> dict[str, type[Attack]]:
    """The attacks there are: a module of this package that holds a kind of attack, by the module's name."""
    found: dict[str, type[Attack]] = {}
    for module in (import_module(f"{__name__}.{entry.name}") for entry in pkgutil.iter_modules(__path__)):
        for kind in vars(module).values():
            here = isinstance(kind, type) and kind.__module__ == module.__name__
            if here and issubclass(kind, Attack) and not isabstract(kind):
                found[module.__name__.rpartition(".")[2]] = kind
    return found
