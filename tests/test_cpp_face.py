"""The kernels from C++: installed, found by CMake, built and run without torch."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
BIN = str(Path(sys.executable).parent)
CMAKE = shutil.which("cmake", path=BIN) or shutil.which("cmake")
NINJA = shutil.which("ninja", path=BIN) or shutil.which("ninja")
NVCC = shutil.which("nvcc")


def run(*command: object) -> str:
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def build(source: Path, folder: Path, *options: str) -> None:
    configure = [CMAKE, "-S", source, "-B", folder, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={NINJA}"]
    run(*configure, "-DCMAKE_BUILD_TYPE=Release", *options)
    run(CMAKE, "--build", folder)


def install(tmp_path: Path, *options: str) -> Path:
    build(ROOT, tmp_path / "library", *options)
    return install_from(tmp_path / "library", tmp_path / "prefix")


def install_from(folder: Path, prefix: Path) -> Path:
    run(CMAKE, "--install", folder, "--component", "cpp", "--prefix", prefix)
    return prefix


def test_the_example_stays_in_the_ball(tmp_path):
    prefix = install(tmp_path, "-DBAT_FAST_CUDA=0")
    build(ROOT / "examples" / "cpp", tmp_path / "example", f"-DCMAKE_PREFIX_PATH={prefix}")
    assert "inside the ball" in run(tmp_path / "example" / "pgd")


def test_installed_files_name_no_path_of_the_build(tmp_path):
    prefix = install(tmp_path, "-DBAT_FAST_CUDA=0")
    files = [path for path in prefix.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"perturb.h", "portable.h", "bat_fastConfig.cmake"}
    assert not [path for path in files if str(ROOT) in path.read_text()]


@pytest.mark.skipif(NVCC is None, reason="no nvcc on this machine, so there is no CUDA library to link")
def test_a_cpp_project_links_the_cuda_library(tmp_path):
    # Where the package was built in place, as README says: compiling every kernel once more takes a minute.
    there = ROOT / "build" / "cmake"
    if (there / "libbat_fast_cuda.a").exists():
        prefix = install_from(there, tmp_path / "prefix")
    else:
        prefix = install(tmp_path, "-DBAT_FAST_CUDA=1", "-DCMAKE_CUDA_ARCHITECTURES=90")
    caller = tmp_path / "caller"
    caller.mkdir()
    (caller / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(caller LANGUAGES CXX)\n"
        "find_package(bat_fast REQUIRED)\nadd_executable(caller main.cpp)\n"
        "target_link_libraries(caller PRIVATE bat_fast::cuda)\n"
    )
    # An empty batch: every launcher can be called where there is no GPU.
    (caller / "main.cpp").write_text(
        '#include "kernels/perturb.h"\n'
        "int main() { float* none = nullptr; bat_fast::linf_step_cuda(none, none, none, 0, {}, nullptr); }\n"
    )
    build(caller, tmp_path / "built", f"-DCMAKE_PREFIX_PATH={prefix}")
    run(tmp_path / "built" / "caller")
