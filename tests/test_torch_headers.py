"""The torch face compiles against older and newer headers too, and asks for nothing that torch 2.10 lacks.

The library is built with the headers of third_party/torch, which a later release brought.
"""

import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

from bat_fast import _native

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
HEADERS = ROOT / "tests" / "torch_headers" / "headers.tar.xz"
OURS = ROOT / "third_party" / "torch"
BIN = str(Path(sys.executable).parent)
CMAKE, NINJA = (shutil.which(name, path=BIN) or shutil.which(name) for name in ("cmake", "ninja"))


def differs(a: Path, b: Path) -> bool:
    return not b.exists() or a.read_bytes() != b.read_bytes()


@pytest.mark.parametrize("release", ["2.10.0", "installed"])
def test_the_torch_face_compiles(release, tmp_path):
    package = tmp_path / release
    if release == "installed":
        package = Path(torch.__file__).parent
        if not [path for path in OURS.rglob("*.h") if differs(path, package / path.relative_to(OURS))]:
            pytest.skip("the library is built with the headers of this release")
    else:
        with tarfile.open(HEADERS) as archive:
            archive.extractall(tmp_path, filter="data")
    build = tmp_path / "build"
    options = [f"-DCMAKE_MAKE_PROGRAM={NINJA}", f"-DBAT_FAST_TORCH={package}", "-DBAT_FAST_CUDA=auto"]
    # All sources in one unit: most of the time goes to the headers.
    options += ["-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", "-DCMAKE_UNITY_BUILD=ON"]
    options += ["-DCMAKE_UNITY_BUILD_BATCH_SIZE=0"]
    command = [CMAKE, "-S", ROOT, "-B", build, "-G", "Ninja", *options]
    configured = subprocess.run(command, capture_output=True, text=True)
    assert configured.returncode == 0, configured.stderr
    entries = json.loads((build / "compile_commands.json").read_text())
    (unit,) = (entry for entry in entries if "/bat_fast.dir/Unity/" in entry["file"])
    included = Path(unit["file"]).read_text()
    assert all(str(source) in included for source in (ROOT / "csrc" / "torch").glob("*.cpp"))
    command = f"{unit['command']} -fsyntax-only"
    checked = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=unit["directory"])
    assert checked.returncode == 0, checked.stderr[-4000:]
    assert not checked.stderr


def test_the_library_asks_for_nothing_that_the_oldest_torch_lacks():
    command = ["nm", "-D", "--undefined-only", _native._FOLDER / "libbat_fast.so"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    asked = set(re.findall(r" U (\w*torch_\w+)", listed))
    assert "torch_parallel_for" in asked
    with tarfile.open(HEADERS) as archive:
        oldest = [entry for entry in archive if entry.name.startswith("2.10.0/")]
        declared = set(re.findall(r"\w+", "".join(archive.extractfile(e).read().decode() for e in oldest)))
    assert asked <= declared
