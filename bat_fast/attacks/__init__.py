"""Attacks: the inner maximisation of adversarial training."""

from bat_fast.attacks.loss import AttackLoss
from bat_fast.attacks.pgd import PGD

__all__ = ["PGD", "AttackLoss"]
