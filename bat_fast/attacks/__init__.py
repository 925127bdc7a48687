"""Attacks: the inner maximisation of adversarial training."""

from bat_fast.attacks.attack import Attack, default_step_size
from bat_fast.attacks.loss import AttackLoss
from bat_fast.attacks.pgd import PGD
from bat_fast.attacks.targets import random_targets
from bat_fast.attacks.untouched import kept_buffers, untouched

frozen = untouched
"""The first name of `untouched`, kept for the programs that use it."""

__all__ = [
    "PGD", "Attack", "AttackLoss", "default_step_size", "frozen", "kept_buffers", "random_targets",
    "untouched",
]  # fmt: skip
