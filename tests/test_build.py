"""The build: without nvcc, with wrong tools, and beside what is installed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
TORCH = Path(torch.__file__).parent
CMAKE = shutil.which("cmake", path=str(Path(sys.executable).parent)) or shutil.which("cmake")
NINJA = shutil.which("ninja", path=str(Path(sys.executable).parent)) or shutil.which("ninja")


def configure(build: Path, env: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    command = [CMAKE, "-S", ROOT, "-B", build, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={NINJA}"]
    settings = [f"-DBAT_FAST_TORCH={TORCH}", "-DCMAKE_BUILD_TYPE=Release", *options]
    return subprocess.run([*command, *settings], capture_output=True, text=True, env=env)


def test_cuda_on_request_needs_nvcc(without_nvcc, tmp_path):
    run = configure(tmp_path / "build", without_nvcc, "-DBAT_FAST_CUDA=1")
    assert run.returncode != 0
    message = " ".join(run.stderr.split())
    assert "there is no nvcc: install the CUDA toolkit (>= 12), or set CUDACXX" in message


def find_torch(place: Path) -> subprocess.CompletedProcess[str]:
    setup = f"runpy.run_path({str(ROOT / 'setup.py')!r})"
    # Once with the whole path, so that what it imports is there when the path is emptied.
    program = f"import sys, runpy, setuptools; setuptools.setup = lambda **_: None; {setup}; "
    program += f"sys.path = [{str(place)!r}]; print({setup}['find_torch']())"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_a_torch_that_is_too_old_is_named(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "version.py").write_text("__version__ = '2.5.1'\n")
    run = find_torch(tmp_path)
    assert run.returncode == 1
    assert "bat_fast needs torch>=2.10" in run.stderr
    assert "pip install -U torch" in run.stderr
    assert "Traceback" not in run.stderr


def test_the_installed_torch_is_found_from_an_isolated_build(tmp_path):
    # An isolated build has an empty path, and must not ask for a second torch all the same.
    run = find_torch(tmp_path)
    assert run.returncode == 0, run.stderr
    assert Path(run.stdout.strip()) == TORCH


@pytest.mark.parametrize("word", ["pyproject.toml", "setup.py"])
def test_torch_is_not_a_build_requirement_of_its_own(word):
    text = (ROOT / word).read_text()
    if word == "pyproject.toml":
        assert "torch" not in text.split("[project]")[0].split("requires = ")[1]
    else:
        assert "setup_requires=[] if find_torch() else [TORCH]" in text
        assert len(text.splitlines()) < 100
