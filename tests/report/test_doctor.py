"""The doctor: each mismatch is named in plain words, with its cure; and this machine is looked at."""

import dataclasses

import pytest
import torch

from bat_fast import _install, _native
from bat_fast.cli import main
from bat_fast.report import machine as probes
from bat_fast.report.doctor import diagnose
from bat_fast.report.machine import Machine, probe

WELL = Machine(
    torch="2.14.1+cu130",
    torch_cuda="13.0",
    torch_archs=("sm_75", "sm_90", "sm_120", "compute_120"),
    card=True,
    driver_cuda="13.0",
    gpus=(("NVIDIA H100", "9.0"),),
    nvcc="13.0",
    dali={"nvidia-dali-cuda130": "2.4.0"},
    bat_fast="0.1.0",
    library=True,
    build={"version": "0.1.0", "cuda": "13.0.88", "cuda_architectures": "75-real 90-real 120"},
)
BUILT = WELL.build
ON_CPU = {"card": False, "driver_cuda": None, "gpus": (), "nvcc": None, "dali": {}}
REBUILD = "pip install --force-reinstall --no-deps"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"driver_cuda": "14.1"},  # a newer driver serves what is older
        {"gpus": (("NVIDIA RTX", "12.0"), ("NVIDIA of tomorrow", "13.0"))},  # which PTX serves
        {"dali": {"nvidia-dali-cuda120": "2.4.0"}},  # for CUDA 12, on a newer driver
        ON_CPU,
        ON_CPU | {"torch": "2.10.0+cpu", "torch_cuda": None, "build": BUILT | {"cuda": ""}},
    ],
)
def test_nothing_is_wrong(changes):
    found = diagnose(dataclasses.replace(WELL, **changes))
    assert len(found) >= 4
    assert not [finding for finding in found if finding.wrong or finding.cure]


@pytest.mark.parametrize(
    ("changes", "what", "cure"),
    [
        ({"torch": None, "torch_problem": "libcudart.so.13: no such file"}, "libcudart.so.13", "install"),
        ({"torch": "2.9.1"}, "torch 2.9.1 is older than 2.10", "pip install -U torch"),
        ({"torchvision_problem": "operator nms does not exist"}, "operator nms", "torchvision"),
        (ON_CPU | {"card": True}, "and no driver", "--gpus all"),
        ({"torch_cuda": None, "gpus": ()}, "built without CUDA", "--force-reinstall torch"),
        ({"driver_cuda": "12.4", "gpus": ()}, "serves CUDA up to 12.4", "a driver from 580 on, or a torch"),
        ({"gpus": (), "hidden": True}, "CUDA_VISIBLE_DEVICES", "unset CUDA_VISIBLE_DEVICES"),
        ({"gpus": (), "cuda_problem": "Error 803"}, "finds no GPU: Error 803", "restart the machine"),
        (
            {"gpus": (("NVIDIA V100", "7.0"),)},
            "torch 2.14.1+cu130 holds no kernels for NVIDIA V100",
            "CUDA 13",
        ),
        ({"switched_off": True}, "BAT_FAST_NATIVE=0", "unset BAT_FAST_NATIVE"),
        ({"library": False}, "the native library is not built", REBUILD),
        ({"library_problem": "undefined symbol: f"}, "does not load (undefined symbol: f)", REBUILD),
        ({"build": BUILT | {"version": "0.0.9"}}, "is of bat_fast 0.0.9, and this is 0.1.0", REBUILD),
        ({"references": ("bat_loss",)}, "lacks bat_loss", REBUILD),
        ({"build": BUILT | {"cuda": ""}}, "built without CUDA, so CUDA tensors run", REBUILD),
        (
            {"build": BUILT | {"cuda": ""}, "nvcc": None},
            "slower PyTorch references",
            "install the CUDA toolkit",
        ),
        (
            {"build": BUILT | {"cuda_architectures": "80-real"}},
            "no kernels for NVIDIA H100",
            "BAT_FAST_ARCHS=90",
        ),
        (
            {"torch_cuda": "12.8", "driver_cuda": "12.8", "dali": {}},
            "built with CUDA 13.0.88, and the driver serves 12.8",
            "the toolkit of CUDA 12",
        ),
        ({"nvcc": "11.8"}, "nvcc is of CUDA 11.8, too old", "CUDACXX="),
        ({"dali_problem": "DALI cannot be imported"}, "cannot be imported", "nvidia-dali-cuda130"),
        ({"dali": {"nvidia-dali-cuda130": "2.1.0"}}, "DALI 2.1.0 is older than 2.4", "pip install -U"),
        (
            {"driver_cuda": "12.8", "torch_cuda": "12.8", "build": BUILT | {"cuda": "12.8"}},
            "nvidia-dali-cuda130 needs CUDA 13, and the driver serves CUDA 12.8",
            "then pip install nvidia-dali-cuda120",
        ),
        (
            {"dali": {"nvidia-dali-cuda120": "2.4.0", "nvidia-dali-cuda130": "2.4.0"}},
            "overwrite each other",
            "then pip install nvidia-dali-cuda130",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_cure(changes, what, cure):
    wrong = [finding for finding in diagnose(dataclasses.replace(WELL, **changes)) if finding.wrong]
    assert len(wrong) == 1, wrong
    assert what in wrong[0].what
    assert cure in wrong[0].cure
    assert "\n" not in wrong[0].what + wrong[0].cure


def test_this_machine_is_looked_at():
    found = probe()
    assert found.torch == torch.__version__
    assert bool(found.gpus) == torch.cuda.is_available()
    assert found.library
    assert found.build == _native.build_info()
    assert not found.references
    assert found.library_problem == ""


def test_the_verb_prints_and_its_status_tells(monkeypatch, capsys):
    monkeypatch.setattr(probes, "probe", lambda: WELL)
    assert main(["doctor"]) == 0
    assert "WRONG" not in capsys.readouterr().out
    monkeypatch.setattr(probes, "probe", lambda: dataclasses.replace(WELL, library=False))
    with pytest.raises(SystemExit) as left:
        main(["doctor"])
    assert left.value.code == 1
    out = capsys.readouterr().out
    assert out.count("WRONG") == 1
    assert f"-> {_install.rebuild()}" in out
