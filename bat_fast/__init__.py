"""bat_fast: fast, dependable adversarial training of image classifiers in PyTorch.

Nothing is loaded before it is used, so that ``bat-fast --help`` need not wait for torch. A program that has
loaded torch already gets the operators of torch at once.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bat_fast import ops
    from bat_fast.attacks import APGD, FAB, FGSM, PGD, AttackLoss, AutoAttack, Square
    from bat_fast.batch import Batch

    __version__: str

__all__ = [
    "APGD", "FAB", "FGSM", "PGD", "AttackLoss", "AutoAttack", "Batch", "Square", "__version__", "ops",
]  # fmt: skip
_ATTACKS = ("APGD", "FAB", "FGSM", "PGD", "AttackLoss", "AutoAttack", "Square")
_PLACES = dict.fromkeys(_ATTACKS, "attacks") | {"Batch": "batch"}
_MODULES = ("attacks", "batch", "ops")  # what `import bat_fast` has always had beside these


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        found: Any = version("bat_fast")
    elif name in _PLACES:
        found = getattr(import_module(f"bat_fast.{_PLACES[name]}"), name)
    elif name in _MODULES:
        found = import_module(f"bat_fast.{name}")
    else:
        raise AttributeError(f"module 'bat_fast' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES, *_MODULES, "__version__"})


if "torch" in sys.modules:
    import_module("bat_fast.ops")
