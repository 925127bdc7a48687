"""Engines: ways to run the model inside the PGD loop that leave its result the same."""

from bat_fast.attacks.engine.network import Network, Plain
from bat_fast.attacks.engine.select import ENGINES, Engine
from bat_fast.attacks.engine.small import SmallNetwork

__all__ = ["ENGINES", "Engine", "Network", "Plain", "SmallNetwork"]
