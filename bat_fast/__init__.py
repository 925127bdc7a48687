"""bat_fast: fast, dependable adversarial training of image classifiers in PyTorch."""

from importlib.metadata import version as _version

from bat_fast import ops
from bat_fast.attacks import PGD, AttackLoss
from bat_fast.batch import Batch

__all__ = ["PGD", "AttackLoss", "Batch", "__version__", "ops"]
__version__ = _version("bat_fast")
