"""Build one wheel, and run the operator and attack tests with it on the oldest and the newest torch.

    python tests/torch_range.py [VERSION ...]

Each torch gets a scratch environment (about 6 GB, removed afterwards).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
OLDEST, NEWEST = "torch==2.10.*", "torch"


def run(*command: object, cwd: Path = ROOT) -> None:
    print("+", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True, cwd=cwd)


def main(requirements: list[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        run(
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-build-isolation",
            "--no-deps",
            "-w",
            scratch,
            ROOT,
        )
        (wheel,) = Path(scratch).glob("*.whl")
        print(f"{wheel.name}: {wheel.stat().st_size / 2**20:.2f} MiB")
        for requirement in requirements:
            with tempfile.TemporaryDirectory() as folder:
                environment = Path(folder) / "venv"
                venv.create(environment, with_pip=True)
                python = environment / "bin" / "python"
                run(
                    python,
                    "-m",
                    "pip",
                    "install",
                    "-q",
                    requirement,
                    "numpy",
                    "pytest",
                    "pytest-benchmark",
                    "hypothesis",
                    "timm",
                )
                run(python, "-m", "pip", "install", "-q", "--no-deps", wheel)
                run(
                    python,
                    "-c",
                    "from bat_fast import ops; assert ops.is_native('linf_step_', 'cpu')",
                )
                # The tests lie outside the tree, so that the installed package is the one that is tested.
                run("cp", "-r", ROOT / "tests", ROOT / "pyproject.toml", folder)
                run(python, "-m", "pytest", "tests/ops", "tests/attacks", cwd=Path(folder))


if __name__ == "__main__":
    main([f"torch=={v}" for v in sys.argv[1:]] or [OLDEST, NEWEST])
