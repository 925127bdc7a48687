"""The template of an operator, laid over a copy of the checkout under another word: built, tested, timed.

The kernels of all other operators would take minutes to compile: the copy leaves them out, and their PyTorch
references answer there.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
TEMPLATE = ROOT / "examples" / "templates" / "operator"
WORD = "twice"
BIN = str(Path(sys.executable).parent)
CMAKE, NINJA = (shutil.which(name, path=BIN) or shutil.which(name) for name in ("cmake", "ninja"))
NVCC = shutil.which("nvcc")


def run(*command: object, **options: object) -> str:
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    assert result.returncode == 0, (result.stdout + result.stderr)[-8000:]
    return result.stdout


def needed(file: Path) -> bool:
    """Whether the copy needs a file of the checkout: it leaves out what compiles the other operators."""
    if file.match("csrc/torch/*.cpp"):
        return not (ROOT / "csrc" / "kernels" / f"{file.stem}.h").exists()
    return not any(map(file.match, ("csrc/kernels/*.cu", "tests/c*/test_*.cpp")))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The copy with the template in it, and what is built there."""
    for tool, found in {"git": shutil.which("git"), "cmake": CMAKE, "ninja": NINJA}.items():
        if found is None:
            pytest.skip(f"no {tool} on this machine, so the template was not built")
    if not (os.environ.get("CXX") or shutil.which("c++")):
        pytest.skip("no C++ compiler on this machine, so the template was not built")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("this is no git checkout, so there is no list of the files to copy")
    copy = tmp_path_factory.mktemp("checkout")
    for file in map(Path, listed.stdout.splitlines()):
        if needed(file) and (ROOT / file).is_file():
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, copy / file)
    lay(copy)
    build(copy)
    return copy


def lay(copy: Path) -> None:
    """What a newcomer does: copy the folder over the checkout, and replace the word."""
    for file in sorted(path for path in TEMPLATE.rglob("*") if path.is_file()):
        place = copy / str(file.relative_to(TEMPLATE)).replace("null", WORD)
        assert not place.exists(), f"{place} would be overwritten"
        place.write_text(file.read_text().replace("null", WORD))


def build(copy: Path) -> None:
    """The library, and the CUDA source as C++ under AddressSanitizer."""
    configure = [CMAKE, "-S", copy, "-B", copy / "build", "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={NINJA}"]
    configure += ["-DBAT_FAST_CUDA=0", f"-DBAT_FAST_TORCH={copy / 'third_party' / 'torch'}"]
    configure += ["-DBAT_FAST_HOST_TESTS=ON", f"-DPython3_EXECUTABLE={sys.executable}"]
    # Large headers are read once for all files of a target; precompiled ones pay in many targets alone.
    configure += ["-DCMAKE_UNITY_BUILD=ON", "-DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON"]
    run(*configure, "-DCMAKE_BUILD_TYPE=Release")
    run(CMAKE, "--build", copy / "build", "--target", "bat_fast", f"{WORD}-address")
    run(CMAKE, "--install", copy / "build", "--component", "python", "--prefix", copy / "bat_fast")


def python(copy: Path, *arguments: object) -> str:
    """The output of Python on the copy, which has no CUDA library."""
    env = os.environ | {"PYTHONPATH": str(copy), "CUDA_VISIBLE_DEVICES": ""}
    return run(sys.executable, *arguments, cwd=copy, env=env)


def test_it_is_native_and_public_and_its_tests_pass(checkout):
    own = ["tests/ops/test_{}.py"]  # asks for the native kernel too
    of_all = ["tests/ops/test_errors.py", "tests/ops/test_properties.py", "tests/ops/test_bench.py"]
    files = [file.format(WORD) for file in (*own, *of_all, "tests/test_layering.py")]
    said = python(checkout, "-m", "pytest", "-p", "no:cacheprovider", "-k", WORD, *files)
    assert " passed" in said
    assert "skipped" not in said


def test_its_benchmark_prints(checkout):
    options = ["--no-compile", "--only", f"{WORD}_scale", "--seconds", "0.2"]
    rows = [line for line in python(checkout, "bench/bench_ops.py", *options).splitlines() if WORD in line]
    assert len(rows) == 2
    assert not [row for row in rows if "WRONG" in row or "the reference answers" in row]


def test_its_cuda_source_runs_on_the_host(checkout):
    assert "all passed" in run(checkout / "build" / "tests" / "cuda_on_host" / f"{WORD}-address")


@pytest.mark.skipif(
    NVCC is None, reason="no nvcc on this machine, so the template was not compiled for a GPU"
)
def test_nvcc_compiles_it(tmp_path):
    source = TEMPLATE / "csrc" / "kernels" / "null.cu"
    include = ["-I", ROOT / "csrc", "-I", TEMPLATE / "csrc"]
    run(
        NVCC,
        "-std=c++20",
        "--fmad=false",
        "-arch=sm_90",
        "-cubin",
        *include,
        "-o",
        tmp_path / "null.cubin",
        source,
    )
