"""The stub of `bat_fast.ops`: what its loop finds at run time, written down for type checkers and editors.

python tests/ops/test_stub.py    writes it, after an operator was added, renamed or removed
"""

import pkgutil
from importlib import import_module
from pathlib import Path

from bat_fast import ops

STUB = Path(ops.__file__).with_suffix(".pyi")


def stub() -> str:
    """The text that the stub should have."""
    lines = ["from bat_fast._native import is_native as is_native"]
    for found in pkgutil.iter_modules(ops.__path__):
        name = f"{ops.__name__}.{found.name}"
        for public in sorted(getattr(import_module(name), "__all__", ())):
            lines.append(f"from {name} import {public} as {public}")
    return "\n".join(["# Written by tests/ops/test_stub.py.", *lines, ""])


def test_the_stub_names_every_operator_and_nothing_else():
    written, right = STUB.read_text().splitlines(), stub().splitlines()
    lacks, foreign = ([line for line in a if line not in b] for a, b in ((right, written), (written, right)))
    assert written == right, f"`python tests/ops/test_stub.py` mends {STUB.name}: {lacks=}, {foreign=}"


if __name__ == "__main__":
    STUB.write_text(stub())
