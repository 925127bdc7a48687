"""The machine code of the CUDA kernels, read from the installed library.

Registers decide how many threads share a multiprocessor, a spill is traffic nobody counted, and an
elementwise kernel that does not load 16 bytes at once does not reach the bandwidth of memory. A kernel that
gets worse fails.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

import bat_fast
from bat_fast import _native

LIBRARY = Path(bat_fast.__file__).parent / "lib" / "libbat_fast.so"
MOST_REGISTERS = 64  # 1024 threads on a multiprocessor
EXCEPTIONS = {
    "holistic_kernel": 104,  # one block in all
    # Rows in registers: two, or three.
    "soft_target_kernel<true": 96,
    "ensemble_kernel<true": 104,
    "pair_rows_kernel<true": 104,
    "pair_backward_kernel<true": 120,
    "attack_grad_kernel<(How)1, true": 128,
}
STACK = {"normal_start_kernel": 32}  # for the arguments of sine and cosine beyond what is exact
# Of each source: kernels, and the types in them, that move every element once.
WIDE = {
    "affine": {
        "channels_kernel<8, true": ("LDG", "STG"),
        "channels_kernel<4, true": ("LDG", "STG"),
        "channels_kernel<8, false": ("LDG", "STG"),
        "channels_kernel<4, false": ("LDG", "STG"),
        "bytes_kernel<true": ("LDG", "STG"),
    },
    "perturb": {
        "linf_step_kernel": ("LDG", "STG"),
        "l2_step_kernel<4, float, float": ("LDG", "STG"),
        "l2_step_kernel<8": ("LDG", "STG"),
    },
    "random_start": {"linf_start_kernel<float>": ("LDG", "STG"), "rgb_start_kernel<float>": ("LDG", "STG")},
    "activation": {"activate_kernel": ("LDG", "STG"), "activate_backward_kernel": ("LDG", "STG")},
    "augment": {f"crop_{how}_kernel<{k}": ("STG",) for how in ("rows", "flip") for k in (4, 8)},
}
# Of each source: kernels that hold rows in registers, and how many rows they read, once each, and write.
ROWS = {
    "attack_grad": {"attack_grad_kernel<(How)1, true": (3, 1), "attack_grad_kernel<(How)2, true": (1, 1)},
    "pair_loss": {"pair_rows_kernel<true": (2, 0), "pair_backward_kernel<true": (2, 2)},
    "row_loss": {
        "bat_rows_kernel<true": (1, 0),
        "bat_backward_kernel<true": (1, 1),
        "soft_target_kernel<true": (2, 1),
    },
}


def cuobjdump() -> str | None:
    """That of the CUDA toolkit, or the one that comes with Triton."""
    if (found := shutil.which("cuobjdump")) is not None:
        return found
    spec = find_spec("triton")
    places = spec.submodule_search_locations if spec is not None else None
    beside = [Path(place) / "backends" / "nvidia" / "bin" / "cuobjdump" for place in places or ()]
    return next((str(path) for path in beside if path.exists()), None)


TOOL = cuobjdump()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(TOOL is None, reason="no cuobjdump: neither a CUDA toolkit nor Triton"),
    pytest.mark.skipif(
        not LIBRARY.exists() or "90" not in _native.build_info()["cuda_architectures"],
        reason="the library holds no machine code for compute capability 9.0",
    ),
]


KNOWN = str(_native.build_info().get("cuda", "")).startswith(
    "13.0"
)  # the compiler that the exact counts are of


def dumped(*words: object, folder: Path | None = None) -> str:
    run = subprocess.run([str(w) for w in (TOOL, *words)], capture_output=True, text=True, cwd=folder)
    assert run.returncode == 0, run.stderr
    return run.stdout


def readable(names: list[str]) -> dict[str, str]:
    """Names as C++ writes them, without what all have in common; by the name in the library."""
    run = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    shown = (
        re.sub(r"bat_fast::|\(anonymous namespace\)::|void ", "", line) for line in run.stdout.splitlines()
    )
    return dict(zip(names, shown, strict=True))


@cache
def usage_on(arch: str) -> dict[str, dict[str, int]]:
    """Registers, stack and local memory of each kernel."""
    text = dumped("-arch", f"sm_{arch}", "--dump-resource-usage", LIBRARY)
    found = re.findall(r"Function (\S+):\s*\n\s*(REG:.*)", text)
    names = readable([name for name, _ in found])
    return {names[name]: {k: int(v) for k, v in re.findall(r"(\w+):(\d+)", line)} for name, line in found}


def limit(table: dict[str, int], name: str, usual: int) -> int:
    return next((value for kernel, value in table.items() if name.startswith(kernel)), usual)


def test_no_kernel_takes_more_registers_than_it_should():
    usage = usage_on("90")
    assert len(usage) > 150
    over = {n: u["REG"] for n, u in usage.items() if u["REG"] > limit(EXCEPTIONS, n, MOST_REGISTERS)}
    assert not over
    for kernel, allowed in EXCEPTIONS.items() if KNOWN else ():  # no exception is larger than it has to be
        assert max(u["REG"] for n, u in usage.items() if n.startswith(kernel)) > allowed - 8


@pytest.mark.parametrize("arch", ["80", "90", "120"])
def test_nothing_is_spilled(arch):
    """A spill turns register traffic into memory traffic, in the innermost loop as a rule."""
    if arch not in _native.build_info()["cuda_architectures"].replace("-real", "").split():
        pytest.skip(f"the library was not compiled for {arch}: BAT_FAST_ARCHS")
    usage = usage_on(arch)
    assert len(usage) > 150
    assert not {n: u for n, u in usage.items() if u["LOCAL"] or u["STACK"] > limit(STACK, n, 0)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The machine code of each source in a file: disassembling all of the library takes ten seconds."""
    folder = tmp_path_factory.mktemp("machine_code")
    dumped("-arch", "sm_90", "-xelf", "all", LIBRARY, folder=folder)
    return folder


def bodies(folder: Path, source: str) -> dict[str, str]:
    """The machine code of each kernel of a source."""
    (file,) = folder.glob(f"*{source}.sm_90.cubin")
    found = dict(part.split("\n", 1) for part in dumped("-sass", file).split("Function : ")[1:])
    names = readable(list(found))
    return {names[mangled]: body for mangled, body in found.items()}


def count(access: str, body: str) -> int:
    """Accesses of 16 bytes."""
    return len(re.findall(rf"\b{access}\.E(?:\.\w+)*\.128\b", body))


def held(folder: Path, source: str, table: dict[str, dict[str, tuple]]) -> Iterator[tuple[str, str, tuple]]:
    """Name and machine code of each kernel that ``table`` is about, and what it says; none may be missing."""
    seen = set()
    for name, body in bodies(folder, source).items():
        for kernel, wanted in table[source].items():
            if name.startswith(kernel):
                seen.add(kernel)
                yield name, body, wanted
    assert seen == set(table[source])


@pytest.mark.parametrize("source", WIDE)
def test_kernels_move_sixteen_bytes_at_once(folder, source):
    for name, body, accesses in held(folder, source, WIDE):
        assert all(count(access, body) for access in accesses), name


@pytest.mark.parametrize("source", ROWS)
def test_rows_are_read_once(folder, source):
    """32 values of each row in a thread are 8 accesses in float32 and 4 in 16 bits."""
    for name, body, rows in held(folder, source, ROWS):
        pieces = 8 if "float" in name.partition("(Logits")[0] and "bfloat" not in name else 4
        found = [count(access, body) for access in ("LDG", "STG")]
        wanted = [pieces * n for n in rows]
        assert found == wanted if KNOWN else all(map(int.__ge__, found, wanted)), name
