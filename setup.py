"""Drives CMake + Ninja; everything about the build itself is in CMakeLists.txt.

Environment: BAT_FAST_CUDA=auto|0|1, CUDACXX (path of nvcc), CXX, and BAT_FAST_ARCHS, the GPUs to compile for:
all by default, ``BAT_FAST_ARCHS=90`` for an H100 alone, which takes less time,
``BAT_FAST_ARCHS="80-real 90"`` for an A100 too; BAT_FAST_TORCH, the folder of an installed torch, to compile
against its headers instead of those in third_party/torch; CMAKE_ARGS, more options for CMake.
"""

import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def tool(name: str) -> str:
    """The executable ``name`` of the environment, or of the system."""
    found = shutil.which(name, path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]))
    if found is None:
        raise SystemExit(f"bat_fast: {name} is missing: pip install {name}")
    return found


class CMakeBuild(build_ext):
    def run(self) -> None:
        package = ROOT if self.editable_mode else Path(self.build_lib).resolve()
        cuda = os.environ.get("BAT_FAST_CUDA") or "auto"
        build = ROOT / "build" / ("cmake-cpu" if cuda == "0" else "cmake")  # so that neither undoes the other
        configure = [
            tool("cmake"), "-S", str(ROOT), "-B", str(build), "-G", "Ninja",
            f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", "-DCMAKE_BUILD_TYPE=Release",
            f"-DBAT_FAST_CUDA={cuda}",
            f"-DBAT_FAST_ARCHS={os.environ.get('BAT_FAST_ARCHS', '')}",
            f"-DBAT_FAST_TORCH={os.environ.get('BAT_FAST_TORCH') or ROOT / 'third_party' / 'torch'}",
            f"-DBAT_FAST_VERSION={self.distribution.get_version()}",
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
)
