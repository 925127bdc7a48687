"""Attacks: the inner maximisation of adversarial training."""

from bat_fast.attacks.attack import Attack, default_step_size
from bat_fast.attacks.frozen import frozen, kept_buffers
from bat_fast.attacks.loss import AttackLoss
from bat_fast.attacks.pgd import PGD
from bat_fast.attacks.targets import random_targets

__all__ = ["PGD", "Attack", "AttackLoss", "default_step_size", "frozen", "kept_buffers", "random_targets"]
