"""The GPUs that the library is compiled for: all of them, or those that are asked for."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import setuptools
import torch
from test_nvcc import images, needs_nvcc

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
BIN = str(Path(sys.executable).parent)
CMAKE, NINJA = (shutil.which(name, path=BIN) or shutil.which(name) for name in ("cmake", "ninja"))
ALL = "75-real 80-real 86-real 89-real 90-real"


def configure(build: Path, *options: str, **environment: str) -> str:
    """The architectures that a build with these settings records."""
    command = [CMAKE, "-S", ROOT, "-B", build, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={NINJA}"]
    command += [f"-DBAT_FAST_TORCH={Path(torch.__file__).parent}", "-DBAT_FAST_CUDA=1", *options]
    env = {key: value for key, value in os.environ.items() if key != "CUDAARCHS"} | environment
    run = subprocess.run(command, capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stderr
    return json.loads((build / "build.json").read_text())["cuda_architectures"]


@needs_nvcc
def test_the_architectures_are_those_asked_for(tmp_path):
    build = tmp_path / "build"
    assert configure(build, "-DBAT_FAST_ARCHS=90") == "90"
    target = "CMakeFiles/bat_fast_cuda.dir/csrc/kernels/activation.cu.o"
    made = subprocess.run([NINJA, "-C", build, target], capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    assert images((build / target).read_bytes()) == {"elf": {90}, "ptx": {90}}
    # The same folder again, as setup.py has it: nothing of an earlier choice stays.
    assert configure(build, "-DBAT_FAST_ARCHS=80-real, 90") == "80-real 90"
    assert configure(build, "-DBAT_FAST_ARCHS=").startswith(ALL)


@needs_nvcc
def test_the_variable_of_cmake_is_heeded(tmp_path):
    assert configure(tmp_path / "build", CUDAARCHS="80;86") == "80 86"


@pytest.mark.parametrize("archs", [None, "80-real 90"])
def test_the_environment_chooses_them(archs, monkeypatch):
    commands = []
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    build = runpy.run_path(str(ROOT / "setup.py"))["CMakeBuild"](setuptools.Distribution({"version": "1"}))
    done = SimpleNamespace(returncode=0)
    monkeypatch.setattr(subprocess, "run", lambda command: commands.append(command) or done)
    monkeypatch.delenv("BAT_FAST_ARCHS", raising=False)
    if archs is not None:
        monkeypatch.setenv("BAT_FAST_ARCHS", archs)
    build.finalize_options()
    build.run()
    assert f"-DBAT_FAST_ARCHS={archs or ''}" in commands[0]
