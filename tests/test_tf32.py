"""Tests compare float32 with float32: TF32 is off in them, and only there."""

import subprocess
import sys

import pytest
import torch


def test_it_is_off_here():
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.slow
def test_the_package_leaves_it_as_torch_has_it():
    program = "import torch; b = torch.backends; print(b.cudnn.allow_tf32, b.cuda.matmul.allow_tf32)"
    plain, with_package = (
        subprocess.run([sys.executable, "-c", f"import {name}; {program}"], capture_output=True, text=True)
        for name in ("torch", "bat_fast")
    )
    assert plain.stdout == with_package.stdout != ""


@pytest.mark.cuda
def test_a_convolution_on_a_gpu_is_one_of_float32():
    x, weight = torch.rand(8, 32, 16, 16), torch.rand(32, 32, 3, 3)
    exact = torch.conv2d(x.double(), weight.double())
    found = torch.conv2d(x.cuda(), weight.cuda()).double().cpu()
    assert ((found - exact) / exact).abs().max() < 1e-5  # TF32: some 1e-4
