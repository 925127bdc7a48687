"""The GPUs that the library is compiled for: all of them, or those that are asked for."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from bat_fast import _native

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
BIN = str(Path(sys.executable).parent)
CMAKE, NINJA = (shutil.which(name, path=BIN) or shutil.which(name) for name in ("cmake", "ninja"))
ALL = "75-real 80-real 86-real 89-real 90-real"
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
needs_nvcc = pytest.mark.skipif(
    NVCC is None, reason="no nvcc on this machine, so nothing was compiled for a GPU"
)


def configure(build: Path, *options: str, **environment: str) -> str:
    """The architectures that a build with these settings records."""
    command = [CMAKE, "-S", ROOT, "-B", build, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={NINJA}"]
    command += [f"-DBAT_FAST_TORCH={ROOT / 'third_party' / 'torch'}", "-DBAT_FAST_CUDA=1", *options]
    env = {key: value for key, value in os.environ.items() if key != "CUDAARCHS"} | environment
    run = subprocess.run(command, capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stderr
    return json.loads((build / "build.json").read_text())["cuda_architectures"]


def images(library: bytes) -> dict[str, set[int]]:
    """The architectures of the machine code and of the PTX in a library's fat binaries.

    Read from the headers, as the CUDA loader does, since cuobjdump is not part of every installed toolkit.
    """
    found: dict[str, set[int]] = {"ptx": set(), "elf": set()}
    start = library.find(b"\x50\xed\x55\xba")
    while start >= 0:
        header, size = struct.unpack_from("<HQ", library, start + 6)
        at, end = start + header, start + header + size
        while at < end <= len(library):
            kind, _, entry_header, entry_size = struct.unpack_from("<HHIQ", library, at)
            (arch,) = struct.unpack_from("<I", library, at + 28)
            if kind in (1, 2):
                found["ptx" if kind == 1 else "elf"].add(arch)
            at += entry_header + entry_size
        start = library.find(b"\x50\xed\x55\xba", start + 4)
    return found


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


@needs_nvcc
def test_the_library_holds_what_it_says():
    said: dict[str, set[int]] = {"elf": set(), "ptx": set()}
    for arch in _native.build_info()["cuda_architectures"].split():
        number, _, kind = arch.partition("-")
        for held in {"real": ["elf"], "virtual": ["ptx"]}.get(kind, ["elf", "ptx"]):
            said[held].add(int(number))
    found = images((_native._FOLDER / "libbat_fast.so").read_bytes())
    assert {kind: archs <= found[kind] for kind, archs in said.items()} == {"elf": True, "ptx": True}
    assert found["ptx"]  # for the GPUs that come after


def test_make_compiles_for_the_gpus_that_are_there_and_a_wheel_for_all(tmp_path):
    gpus = tmp_path / "nvidia-smi"
    gpus.write_text("#!/bin/sh\nprintf '8.9\\n8.9\\nfield is not valid\\n'\n")
    gpus.chmod(0o755)
    env = {name: value for name, value in os.environ.items() if name not in ("BAT_FAST_ARCHS", "MAKEFLAGS")}
    env["PATH"] = f"{tmp_path}:{env['PATH']}"

    def lines(target: str) -> list[str]:
        command = ["make", "-n", "-B", "-C", str(ROOT), target]
        return subprocess.run(
            command, capture_output=True, text=True, env=env, check=True
        ).stdout.splitlines()

    (install,) = (line for line in lines("demo") if "pip install" in line and " -e " in line)
    assert install.startswith('BAT_FAST_ARCHS="${BAT_FAST_ARCHS-75-virtual 89-real 90-real}" ')
    assert not [line for line in lines("wheel") if "BAT_FAST_ARCHS" in line]
