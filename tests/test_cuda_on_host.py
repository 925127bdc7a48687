"""The CUDA kernels compiled as C++ and run on the host: as they are, and under the sanitizers."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
BUILD = ROOT / "build" / "host"  # kept, so that the next run compiles only what changed
BIN = str(Path(sys.executable).parent)
CMAKE, CTEST, NINJA = (
    shutil.which(name, path=BIN) or shutil.which(name) for name in ("cmake", "ctest", "ninja")
)


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True)


@pytest.fixture(scope="module")
def build() -> Path:
    options = [f"-DCMAKE_MAKE_PROGRAM={NINJA}", f"-DPython3_EXECUTABLE={sys.executable}"]
    options += ["-DBAT_FAST_CUDA=0", "-DBAT_FAST_HOST_TESTS=ON", "-DBAT_FAST_OPTIMIZATION=-O1"]
    configured = run(CMAKE, "-S", ROOT, "-B", BUILD, "-G", "Ninja", *options)
    assert configured.returncode == 0, configured.stderr
    return BUILD


def make(build: Path, target: str) -> None:
    built = run(CMAKE, "--build", build, "--target", target)
    assert built.returncode == 0, built.stdout[-8000:]


# Under AddressSanitizer the same programs check the same numbers, and more.
@pytest.mark.parametrize(
    "variant", ["address", *(pytest.param(v, marks=pytest.mark.whole) for v in ("plain", "thread"))]
)
def test_kernels_are_right_and_clean(build, variant):
    make(build, f"programs-{variant}")
    tests = run(CTEST, "--test-dir", build, "-L", variant, "--output-on-failure", "-j2", "--no-tests=error")
    assert tests.returncode == 0, tests.stdout[-12000:]


@pytest.fixture(scope="module")
def faults(build) -> Path:
    make(build, "faults")
    return build / "tests" / "cuda_on_host"


@pytest.mark.parametrize(
    ("program", "complaint"),
    [
        ("missing_barrier-thread", "WARNING: ThreadSanitizer: data race"),
        ("missing_barrier-plain", r"FAILED: sum"),
        ("blocks_share_a_result-thread", "WARNING: ThreadSanitizer: data race"),
        ("global_overrun-address", "AddressSanitizer: heap-buffer-overflow"),
        ("shared_overrun-address", "index 64 out of bounds|AddressSanitizer: use-after-poison"),
        ("too_much_shared-plain", "more dynamic shared memory than the kernel gets"),
        ("unset_shared-plain", r"FAILED: sum \[0\] is -?nan"),
        (
            "divergent_barrier-plain",
            r"wait at different places\n  32 threads at .*faults\.cu:\d+\n  32 threads",
        ),
    ],
)
def test_a_fault_is_caught(faults, program, complaint):
    fault = run(faults / f"fault_{program}")
    assert fault.returncode != 0
    assert re.search(complaint, fault.stdout + fault.stderr), fault.stdout + fault.stderr


@pytest.mark.parametrize("variant", ["plain", "address", "thread"])
def test_without_a_fault_nothing_is_reported(faults, variant):
    right = run(faults / f"fault_none-{variant}")
    assert right.returncode == 0, right.stdout + right.stderr
    assert "ThreadSanitizer" not in right.stderr
