"""The kernels from C++: installed, found by CMake, built and run without torch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from sysconfig import get_path

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


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    return install(tmp_path_factory.mktemp("cpp"), "-DBAT_FAST_CUDA=0")


def test_the_example_stays_in_the_ball(prefix, tmp_path):
    build(ROOT / "examples" / "cpp", tmp_path / "example", f"-DCMAKE_PREFIX_PATH={prefix}")
    assert "inside the ball" in run(tmp_path / "example" / "pgd")


NUMPY_CALLER = """
import sys
import numpy as np
import bat_fast_numpy as kernels

assert "torch" not in sys.modules
draw = np.random.default_rng(int(sys.argv[1]))
clean, grad = draw.random((3, 2, 5, 7), np.float32), draw.standard_normal((3, 2, 5, 7), np.float32)
adv, eps, size = np.empty_like(clean), 0.1, 0.03
kernels.random_start(adv, clean, np.arange(3), eps, seed=1)
assert 0.5 * eps < np.abs(adv - clean).max() <= eps + 1e-6
expected = np.clip(np.clip(adv + size * np.sign(grad), clean - eps, clean + eps), 0, 1)
kernels.linf_step(adv, grad, clean, size, eps)
np.testing.assert_allclose(adv, expected, rtol=0, atol=1e-6)

norm = lambda images: np.sqrt((images**2).sum((1, 2, 3), keepdims=True))
moved = adv + size * grad / norm(grad) - clean
expected = np.clip(clean + moved * np.minimum(1, eps / norm(moved)), 0, 1)
kernels.l2_step(adv, grad, clean, size, eps)
np.testing.assert_allclose(adv, expected, rtol=0, atol=1e-5)

def refused(words, *arrays):
    before = adv.copy()
    try:
        kernels.linf_step(*arrays, size, eps)
    except (ValueError, TypeError) as error:
        assert words in str(error), error
    else:
        raise AssertionError(words)
    np.testing.assert_array_equal(adv, before)

refused("adv: shares memory with clean", adv, grad, adv)
refused("grad: must have the shape of adv", adv, grad[:2], clean)
refused("numpy.float32", adv.transpose(0, 2, 3, 1), grad, clean)
refused("numpy.float32", adv, grad.astype(float), clean)
adv.setflags(write=False)
refused("adv: the array is read-only", adv, grad, clean)
print("equal")
"""


@pytest.mark.whole
@pytest.mark.skipif(not (Path(get_path("include")) / "Python.h").exists(), reason="no headers of this Python")
def test_the_kernels_from_numpy_without_torch(prefix, tmp_path):
    pybind11 = pytest.importorskip("pybind11")
    folders = f"-DCMAKE_PREFIX_PATH={prefix};{pybind11.get_cmake_dir()}"
    module = tmp_path / "module"
    build(ROOT / "examples" / "pybind11", module, folders, f"-DPython_EXECUTABLE={sys.executable}")
    (module / "caller.py").write_text(NUMPY_CALLER)
    assert "equal" in run(sys.executable, module / "caller.py", int(os.environ["BAT_FAST_TEST_SEED"]))


@pytest.mark.whole
def test_bat_loss_in_jax_is_that_of_jnp_in_both_precisions(prefix, tmp_path):
    jax = pytest.importorskip("jax", reason="pip install jax; make test-hosts has it")
    source, built = ROOT / "examples" / "jax", tmp_path / "jax"
    build(source, built, f"-DCMAKE_PREFIX_PATH={prefix}", f"-DJAX_INCLUDE={jax.ffi.include_dir()}")
    seed = os.environ["BAT_FAST_TEST_SEED"]
    said = run(sys.executable, source / "compare.py", built / "libbat_fast_jax.so", seed, 3)
    assert said.startswith("equal\n[128, 10]")


def test_installed_files_name_no_path_of_the_build(prefix):
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
