"""How the torch face reports errors of CUDA: on the host, where torch and CUDA fail as they are told."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("torch_has_cuda", [True, False])
def test_an_error_on_the_device_is_thrown_unless_another_one_is(torch_has_cuda, tmp_path):
    source = ROOT / "tests" / "torch_device" / "test_on_device.cpp"
    options = ["-std=c++20", "-DBAT_FAST_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000"]
    options += ["-DWITH_CUDA"] if torch_has_cuda else []
    include = [
        f"-I{source.parent}",
        f"-I{ROOT / 'csrc'}",
        "-isystem",
        ROOT / "third_party" / "torch" / "include",
    ]
    program = tmp_path / "test_on_device"
    built = subprocess.run(["c++", *options, *include, source, "-o", program], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    run = subprocess.run([program], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
