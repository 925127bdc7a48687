"""Training: the loop, its checkpoints and its folder."""

from bat_fast.train.trainer import Trainer

__all__ = ["Trainer"]
