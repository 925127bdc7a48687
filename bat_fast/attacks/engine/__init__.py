"""Engines: ways to run the model inside the PGD loop that leave its result the same."""

from bat_fast.attacks.engine.attacked_model import AttackedModel, Plain
from bat_fast.attacks.engine.select import ENGINES, Engine, Loop
from bat_fast.attacks.engine.small import SmallNetwork

__all__ = ["ENGINES", "AttackedModel", "Engine", "Loop", "Plain", "SmallNetwork"]
