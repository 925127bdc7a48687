"""Drives CMake + Ninja; everything about the build itself is in CMakeLists.txt.

Environment: BAT_FAST_CUDA=auto|0|1, CUDACXX (path of nvcc), CXX, and BAT_FAST_ARCHS, the GPUs to compile for:
all by default, ``BAT_FAST_ARCHS=90`` for an H100 alone, which takes less time,
``BAT_FAST_ARCHS="80-real 90"`` for an A100 too; CMAKE_ARGS, more options for CMake.
"""

import os
import shlex
import shutil
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
TORCH = "torch>=2.10"


def find_torch() -> Path | None:
    """The folder of the installed torch package, also from inside an isolated build.

    Only its headers and libraries are needed, so no torch has to be put into the build environment.
    """
    base = {"base": sys.base_prefix, "platbase": sys.base_prefix}
    places = [*sys.path, sysconfig.get_path("purelib"), sysconfig.get_path("purelib", vars=base)]
    for place in [*places, site.getusersitepackages()]:
        if (Path(place) / "torch" / "include" / "torch" / "csrc" / "stable" / "ops.h").is_file():
            return Path(place) / "torch"
        if (Path(place) / "torch" / "version.py").is_file():
            raise SystemExit(f"bat_fast needs {TORCH}, and {place} holds an older one: pip install -U torch")
    return None


def tool(name: str) -> str:
    """The executable ``name`` of the environment, or of the system."""
    found = shutil.which(name, path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]))
    if found is None:
        raise SystemExit(f"bat_fast: {name} is missing: pip install {name}")
    return found


class CMakeBuild(build_ext):
    def run(self) -> None:
        torch = find_torch()
        if torch is None:
            raise SystemExit("bat_fast: no torch to build against: pip install torch")
        package = ROOT if self.editable_mode else Path(self.build_lib).resolve()
        build = ROOT / "build" / "cmake"
        configure = [
            tool("cmake"), "-S", str(ROOT), "-B", str(build), "-G", "Ninja",
            f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", "-DCMAKE_BUILD_TYPE=Release",
            f"-DBAT_FAST_CUDA={os.environ.get('BAT_FAST_CUDA', 'auto')}",
            f"-DBAT_FAST_ARCHS={os.environ.get('BAT_FAST_ARCHS', '')}",
            f"-DBAT_FAST_TORCH={torch}", f"-DBAT_FAST_VERSION={self.distribution.get_version()}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]  # fmt: skip
        install = [tool("cmake"), "--install", str(build), "--component", "python", "--prefix"]
        steps = (
            configure,
            [tool("cmake"), "--build", str(build)],
            [*install, str(package / "bat_fast")],
        )
        for command in steps:
            if subprocess.run(command).returncode:
                raise SystemExit("bat_fast: the native build failed; the reason is in the lines above")

    def get_outputs(self) -> list[str]:
        return [str(path) for path in (Path(self.build_lib) / "bat_fast" / "lib").glob("*")]


class AnyPythonWheel(bdist_wheel):
    """The library speaks torch's stable C ABI, not Python's: one wheel for every Python version."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[Extension("bat_fast.lib", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "bdist_wheel": AnyPythonWheel},
    setup_requires=[] if find_torch() else [TORCH],
)
