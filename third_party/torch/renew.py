"""Copy the headers that the torch face includes from an installed torch into this folder.

    python third_party/torch/renew.py  # of the environment that runs it

What the text includes is followed in every branch of the preprocessor, so that other processors and
compilers find theirs. Commit what changed, with the version that is printed in README.md.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import torch

HERE = Path(__file__).parent
FACE = HERE.parents[1] / "csrc" / "torch"
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]((?:torch|c10|ATen)/[^>"]+)[>"]', re.MULTILINE)


def closure(include: Path, sources: list[Path]) -> set[str]:
    """The names below ``include`` of all that the sources include, directly or not."""
    found: set[str] = set()
    waiting = list(sources)
    while waiting:
        for name in INCLUDE.findall(waiting.pop().read_text()):
            if name not in found and (include / name).is_file():
                found.add(name)
                waiting.append(include / name)
    return found


def main() -> None:
    installed = Path(torch.__file__).parent / "include"
    names = closure(installed, [*FACE.glob("*.h"), *FACE.glob("*.cpp")])
    shutil.rmtree(HERE / "include", ignore_errors=True)
    for name in sorted(names):
        place = HERE / "include" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(installed / name, place)
    size = sum(path.stat().st_size for path in (HERE / "include").rglob("*.h"))
    print(f"torch {torch.__version__}: {len(names)} headers, {size // 1024} KB")


if __name__ == "__main__":
    main()
