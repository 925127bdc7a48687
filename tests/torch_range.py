"""Run one package of bat_fast on several releases of torch and Python, each in a scratch environment.

    python tests/torch_range.py [VERSION ...] [--package FILE] [--python PATH ...] [--smoke]

VERSION is of torch, such as 2.10.0 or newest: both ends of the range without it. The package is a wheel or a
source distribution; without one the checkout is built. `--smoke` runs tests/smoke.py alone, in seconds; else
the tests of the operators and attacks run. An environment is about 6 GB, and removed afterwards.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
OLDEST, NEWEST = "2.10.*", "newest"
RUNNER = ("pytest", "pytest-benchmark", "hypothesis", "timm", "scikit-learn")


def run(*command: object, cwd: Path = ROOT) -> None:
    print("+", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True, cwd=cwd)


def build(folder: str) -> Path:
    """A wheel of the checkout."""
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", folder, ROOT)
    (wheel,) = Path(folder).glob("*.whl")
    return wheel


def try_on(python: str, torch: str, package: Path, smoke: bool) -> None:
    """Install ``package`` beside ``torch`` in an environment of its own, and see it work."""
    with tempfile.TemporaryDirectory() as folder:
        run(python, "-m", "venv", f"{folder}/venv")
        own = Path(folder) / "venv" / "bin" / "python"
        run(own, "-m", "pip", "install", "-q", torch, "numpy", *(() if smoke else RUNNER))
        start = time.perf_counter()
        run(own, "-m", "pip", "install", "-q", "--no-deps", package)
        print(f"{package.name}: installed in {time.perf_counter() - start:.1f} s")
        # Away from the tree, so that the installed package is the one that is tested.
        run("cp", "-r", *(ROOT / name for name in ("tests", "bench", "pyproject.toml")), folder)
        run(own, "tests/smoke.py", cwd=Path(folder))
        if not smoke:
            run(own, "-m", "pytest", "tests/ops", "tests/attacks", cwd=Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description="One package on several releases of torch and Python.")
    parser.add_argument("version", nargs="*", help="of torch: 2.10.0, or newest")
    parser.add_argument("--package", type=Path, help="a wheel or a source distribution")
    parser.add_argument("--python", action="append", help="an interpreter; may be given again")
    parser.add_argument("--smoke", action="store_true", help="tests/smoke.py alone")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        package = words.package.resolve() if words.package else build(scratch)
        print(f"{package.name}: {package.stat().st_size / 2**20:.2f} MiB")
        for python in words.python or [sys.executable]:
            for torch in words.version or [OLDEST, NEWEST]:
                requirement = "torch" if torch == NEWEST else f"torch=={torch}"
                try_on(python, requirement, package, words.smoke)


if __name__ == "__main__":
    main()
