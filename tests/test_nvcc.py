"""What nvcc makes of the kernels: no register spills, wide accesses, every architecture in the library."""

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from bat_fast import _native

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
SOURCES = sorted((ROOT / "csrc" / "kernels").glob("*.cu"))
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
needs_nvcc = pytest.mark.skipif(
    NVCC is None, reason="no nvcc on this machine, so nothing was compiled for a GPU"
)


def nvcc(source: Path, *options: object) -> str:
    command = [NVCC, "-std=c++20", "-O3", "--fmad=false", "-I", ROOT / "csrc", *options, source]
    run = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stderr


@needs_nvcc
@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_120"])
@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_no_kernel_spills_registers(source, arch, tmp_path):
    # A spill turns register traffic into memory traffic, in the innermost loop as a rule.
    report = nvcc(source, f"-arch={arch}", "-Xptxas=-v", "-cubin", "-o", tmp_path / "kernels.cubin")
    kernels = re.findall(r"Compiling entry function '(\w+)'", report)
    spills = re.findall(
        r"Function properties for (\w+)\n.*, (\d+) bytes spill stores, (\d+) bytes spill", report
    )
    assert {name for name, *_ in spills} >= set(kernels) != set()
    assert not [spill for spill in spills if spill[1:] != ("0", "0")]


def accesses(ptx: str, kernel: str) -> str:
    """The loads and stores of global memory in the one entry whose mangled name holds ``kernel``."""
    (entry,) = (text for text in ptx.split(".entry ")[1:] if kernel in text.split("(")[0])
    return "\n".join(re.findall(r"(?:ld|st)\.global\S*", entry))


@needs_nvcc
def test_the_step_moves_16_bytes_at_a_time(tmp_path):
    # The kernel does little else than move memory: four times the instructions would be its limit.
    nvcc(ROOT / "csrc" / "kernels" / "perturb.cu", "-arch=compute_80", "-ptx", "-o", tmp_path / "perturb.ptx")
    step = accesses((tmp_path / "perturb.ptx").read_text(), "linf_step_kernelIffE")
    wide = r"\.global\S*\.v4\.(?:f32|b32|u32)"
    assert len(re.findall(f"ld{wide}", step)) == 3  # adv, grad, clean
    assert len(re.findall(f"st{wide}", step)) == 1


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
def test_the_library_serves_every_architecture():
    found = images((_native._FOLDER / "libbat_fast.so").read_bytes())
    assert found["elf"] >= {75, 80, 86, 89, 90, 100, 120}
    assert found["ptx"] >= {120}  # for what comes after
