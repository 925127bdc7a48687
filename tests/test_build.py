"""The build: without nvcc, with wrong tools, and beside what is installed."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import setuptools

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
TORCH = ROOT / "third_party" / "torch"
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


def test_a_torch_without_the_headers_is_named(tmp_path):
    run = configure(tmp_path / "build", dict(os.environ), f"-DBAT_FAST_TORCH={tmp_path}", "-DBAT_FAST_CUDA=0")
    assert run.returncode != 0
    message = " ".join(run.stderr.split())
    assert f"BAT_FAST_TORCH: {tmp_path}/include has no headers of torch >= 2.10" in message
    assert "those of third_party/torch are taken" in message


def test_a_word_that_is_none_of_the_switch_is_named(tmp_path):
    run = configure(tmp_path / "build", dict(os.environ), "-DBAT_FAST_CUDA=off")
    assert run.returncode != 0
    assert "BAT_FAST_CUDA must be auto, 0 or 1, got 'off'" in run.stderr


@pytest.mark.parametrize(
    ("variable", "value", "heeded"),
    [
        ("BAT_FAST_TORCH", None, TORCH),
        ("BAT_FAST_TORCH", "/opt/torch", "/opt/torch"),
        ("BAT_FAST_ARCHS", None, ""),
        ("BAT_FAST_ARCHS", "80-real 90", "80-real 90"),
    ],
)
def test_the_environment_is_heeded(variable, value, heeded, monkeypatch):
    commands = []
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    build = runpy.run_path(str(ROOT / "setup.py"))["CMakeBuild"](setuptools.Distribution({"version": "1"}))
    done = SimpleNamespace(returncode=0)
    monkeypatch.setattr(subprocess, "run", lambda command: commands.append(command) or done)
    monkeypatch.delenv(variable, raising=False)
    if value is not None:
        monkeypatch.setenv(variable, value)
    build.finalize_options()
    build.run()
    assert f"-D{variable}={heeded}" in commands[0]


def test_nothing_of_the_build_asks_for_torch():
    text = (ROOT / "pyproject.toml").read_text()
    assert "torch" not in text.split("[project]")[0].split("requires = ")[1]
    assert "setup_requires" not in (ROOT / "setup.py").read_text()


def test_the_headers_include_nothing_that_is_not_there():
    """Also in the branches for other processors and compilers, which no build of this machine takes."""
    renew = runpy.run_path(str(TORCH / "renew.py"))
    sources = [*(ROOT / "csrc" / "torch").glob("*.h"), *(ROOT / "csrc" / "torch").glob("*.cpp")]
    there = {str(path.relative_to(TORCH / "include")) for path in (TORCH / "include").rglob("*.h")}
    assert renew["closure"](TORCH / "include", sources) == there
    text = "".join((TORCH / "include" / path).read_text() for path in there)
    assert set(renew["INCLUDE"].findall(text)) <= there
