"""The torch face compiles against the headers of older releases too, as the build would compile it."""

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
HEADERS = ROOT / "tests" / "torch_headers" / "headers.tar.xz"
BIN = str(Path(sys.executable).parent)
CMAKE, NINJA = (shutil.which(name, path=BIN) or shutil.which(name) for name in ("cmake", "ninja"))


@pytest.mark.parametrize("release", ["2.10.0", "2.11.0", "installed"])
def test_the_torch_face_compiles(release, tmp_path):
    package = tmp_path / release
    if release == "installed":
        package = Path(torch.__file__).parent
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
