"""Pack the headers of older torch releases, which `tests/test_torch_headers.py` compiles against.

    pip download --no-deps torch==2.10.0
    python tests/torch_headers/pack.py torch-2.10.0-*.whl torch-2.11.0-*.whl

The stable C++ face of torch is a few folders of headers without libraries: 1.2 MB for two releases, and 80 KB
packed. They are unchanged, and under the licence in third_party/torch.
"""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path

ARCHIVE = Path(__file__).with_name("headers.tar.xz")
FOLDERS = ("torch/csrc/stable/", "torch/csrc/inductor/aoti_torch/", "torch/headeronly/")


def main(wheels: list[str]) -> None:
    with tarfile.open(ARCHIVE, "w:xz", preset=9) as archive:
        for wheel in wheels:
            version = Path(wheel).name.split("-")[1]
            with zipfile.ZipFile(wheel) as files:
                for name in sorted(files.namelist()):
                    inside = name.removeprefix("torch/include/")
                    if not inside.startswith(FOLDERS) or not inside.endswith(".h") or inside == name:
                        continue
                    text = files.read(name)
                    entry = tarfile.TarInfo(f"{version}/include/{inside}")  # without a date: the same bytes
                    entry.size = len(text)
                    archive.addfile(entry, io.BytesIO(text))


if __name__ == "__main__":
    main(sys.argv[1:])
