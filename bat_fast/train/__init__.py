"""Training: the loop, and what happens to a batch."""

from bat_fast.train.observer import Observer
from bat_fast.train.trainer import Trainer

__all__ = ["Observer", "Trainer"]
