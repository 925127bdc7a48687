"""The native library: that it answers, what its build recorded, and what happens without it."""

import os
import subprocess
import sys

import pytest
import torch
from words import FOR_CPUS

import bat_fast
from bat_fast import _native, ops


def python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_version_is_one_number():
    assert _native.build_info()["version"] == bat_fast.__version__


def test_every_operator_is_native_on_cpu():
    assert [name for name in _native.operators() if not ops.is_native(name, "cpu")] == []


def test_cuda_kernels_are_in_the_library_where_nvcc_was():
    built = bool(_native.build_info()["cuda"])
    answers = {name: ops.is_native(name, "cuda") for name in _native.operators()}
    words = {name: _native.reference_of(name).__module__.rpartition(".")[2] for name in answers}
    for_cpus = {name for name, word in words.items() if word in FOR_CPUS}
    assert {name for name, native in answers.items() if native != built} == (for_cpus if built else set())
    if built:
        assert _native.build_info()["cuda_architectures"]  # what they say is held by tests/test_archs.py


def test_unknown_operators_are_named():
    with pytest.raises(ValueError, match=r"no operator 'sqrt'; there are .*linf_step_"):
        ops.is_native("sqrt", "cpu")


@pytest.mark.slow
def test_references_answer_when_the_library_is_switched_off():
    program = (
        "import torch; from bat_fast import ops; x = torch.rand(2, 3, 4, 4); "
        "print(ops.is_native('random_start', 'cpu'), ops.random_start(x, eps=.1).shape)"
    )
    run = python(program, BAT_FAST_NATIVE="0")
    assert run.stdout.split()[0] == "False", run.stderr
    assert "Warning" not in run.stderr


@pytest.mark.slow
def test_a_missing_library_is_said_once_and_loudly():
    program = (
        "import warnings; warnings.simplefilter('always'); from pathlib import Path; real = Path.exists; "
        "Path.exists = lambda p: p.name != 'libbat_fast.so' and real(p); import bat_fast; import bat_fast.ops"
    )
    run = python(program)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("the native library is not built") == 1


def test_the_library_needs_no_path_of_the_build_machine():
    path = _native._FOLDER / "libbat_fast.so"
    dynamic = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
    assert "RPATH" not in dynamic
    assert "RUNPATH" not in dynamic
    assert "libcudart" not in dynamic
    assert "libtorch_python" not in dynamic


def test_labels_out_of_range_are_refused_by_the_operator_itself():
    # The check in Python is skipped while compiling.
    z = torch.randn(3, 4)
    with pytest.raises(RuntimeError, match=r"target holds 4 in row 1, outside \[0, 4\)"):
        torch.ops.bat_fast.attack_grad(z, torch.tensor([0, 4, -(2**40)]), "ce", None, None, 0.0, False, None)
    with pytest.raises(RuntimeError, match=r"target holds -1 in row 0"):
        torch.ops.bat_fast.bat_loss(z, torch.tensor([-1, 3, 1]), 1.0, "weights")


def test_kernels_refuse_a_dtype_that_they_would_misread():
    # The checks in Python are not part of a traced graph, which may run again in another precision.
    z = torch.randn(3, 4)
    for wrong in (z.half(), z.bfloat16(), z.long()):
        with pytest.raises(RuntimeError, match=r"float32 and float64|floating point"):
            torch.ops.bat_fast.attack_grad(wrong, torch.tensor([0, 1, 2]), "ce", None, None, 0.0, False, None)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_gradient_that_autograd_hands_in_may_have_another_dtype(dtype):
    z = torch.randn(3, 4, requires_grad=True)
    loss = ops.bat_loss(z, torch.tensor([0, 1, 2]), alpha=1.0)[0]
    for out in (loss, ops.softplus(z), ops.smooth_relu(z, torch.tensor(2.0))):
        (expected,) = torch.autograd.grad(out, z, torch.full_like(out, 3.0), retain_graph=True)
        (grad,) = torch.autograd.grad(out, z, torch.full_like(out, 3.0, dtype=dtype))
        torch.testing.assert_close(grad, expected)
