"""What keeps this installation from being fast, or from working, in plain words, each with its cure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from bat_fast._install import rebuild
from bat_fast.report.machine import Machine

_OLDEST_TORCH = (2, 10)
_OLDEST_DALI = (2, 4)
_OLDEST_NVCC = (12, 0)
# The first driver for Linux of each CUDA, of which every later one serves the whole major version.
_DRIVERS = {12: "525", 13: "580"}


class Finding(NamedTuple):
    """One thing that was looked at, and its cure: a command or an instruction, empty where none is needed."""

    wrong: bool
    what: str
    cure: str = ""


def diagnose(machine: Machine) -> list[Finding]:
    """What is right and what is wrong, in the order in which it has to be put right."""
    if machine.torch is None:
        reason = f" ({machine.torch_problem})" if machine.torch_problem else ""
        return [Finding(True, f"torch cannot be imported{reason}", "pip install --force-reinstall torch")]
    checks = (_torch, _gpu, _library, _toolkit, _dali)
    return [finding for check in checks for finding in check(machine)]


def print_findings(findings: list[Finding]) -> None:
    """One line for each finding, and one for its cure."""
    for finding in findings:
        print(f"{'WRONG' if finding.wrong else 'ok':<7}{finding.what}")
        if finding.cure:
            print(f"{'':<7}-> {finding.cure}")


def _torch(machine: Machine) -> Iterator[Finding]:
    if _numbers(machine.torch) < _OLDEST_TORCH:
        yield Finding(True, f"torch {machine.torch} is older than 2.10", "pip install -U torch torchvision")
    else:
        yield Finding(False, f"torch {machine.torch}, for {_of_torch(machine)}")
    if machine.torchvision_problem:
        yield Finding(
            True,
            f"torchvision does not fit this torch ({machine.torchvision_problem})",
            "pip install -U torch torchvision",
        )


def _gpu(machine: Machine) -> Iterator[Finding]:
    driver, built = machine.driver_cuda, machine.torch_cuda
    if driver is None:
        if machine.card:
            yield Finding(
                True,
                "an NVIDIA GPU is in this machine, and no driver",
                "install NVIDIA's driver; a container has to be started with the GPU (--gpus all)",
            )
        else:
            yield Finding(False, "no NVIDIA GPU: everything runs on the CPU")
    elif built is None:
        yield Finding(
            True,
            f"the driver serves CUDA {driver}, but this torch was built without CUDA",
            "pip install --force-reinstall torch torchvision",
        )
    elif _major(driver) < _major(built):
        older = f", or a torch for CUDA {_major(driver)}: pytorch.org/get-started names its index"
        yield Finding(
            True,
            f"the driver serves CUDA up to {driver}, and torch {machine.torch} was built for CUDA {built}",
            f"a driver from {_DRIVERS.get(_major(built), 'a newer branch')} on" + older,
        )
    elif machine.hidden:
        yield Finding(
            True,
            "CUDA_VISIBLE_DEVICES names no GPU, so torch sees none",
            "unset CUDA_VISIBLE_DEVICES",
        )
    elif not machine.gpus:
        reason = machine.cuda_problem or "it gives no reason"
        yield Finding(
            True,
            f"the driver serves CUDA {driver}, yet torch finds no GPU: {reason}",
            "nvidia-smi must list the GPU; after an update of the driver, restart the machine",
        )
    for name, capability in machine.gpus:
        if not _serves(machine.torch_archs, capability):
            yield Finding(
                True,
                f"torch {machine.torch} holds no kernels for {name} (compute capability {capability})",
                "a torch for another CUDA: pytorch.org/get-started; CUDA 13 serves 7.5 and later",
            )
        else:
            yield Finding(False, f"{name}, compute capability {capability}, driver for CUDA {driver}")


def _library(machine: Machine) -> Iterator[Finding]:
    build = machine.build
    slow = "so every operator runs its slower PyTorch reference"
    if machine.switched_off:
        yield Finding(
            True, f"BAT_FAST_NATIVE=0 switches the native library off, {slow}", "unset BAT_FAST_NATIVE"
        )
        return
    if not machine.library:
        yield Finding(True, f"the native library is not built, {slow}", rebuild())
        return
    if machine.library_problem:
        yield Finding(
            True, f"the native library does not load ({machine.library_problem}), {slow}", rebuild()
        )
        return
    if build.get("version") != machine.bat_fast:
        what = f"the native library is of bat_fast {build.get('version')}, and this is {machine.bat_fast}"
        yield Finding(True, what, rebuild())
    elif machine.references:
        what = f"the native library lacks {', '.join(machine.references)}: it is older than these files"
        yield Finding(True, what, rebuild())
    else:
        kinds = f"CUDA {build['cuda']}" if build.get("cuda") else "the CPU alone"
        yield Finding(False, f"the native library answers, built for {kinds}")
    yield from _kernels(machine)


def _kernels(machine: Machine) -> Iterator[Finding]:
    """Whether the GPUs have kernels in the native library."""
    if not machine.gpus:
        return
    cuda = machine.build.get("cuda")
    if not cuda:
        what = "the native library was built without CUDA, so CUDA tensors run the slower PyTorch references"
        yield Finding(
            True, what, rebuild() if machine.nvcc else f"install the CUDA toolkit (nvcc), then {rebuild()}"
        )
        return
    if machine.driver_cuda and _major(machine.driver_cuda) < _major(cuda):
        yield Finding(
            True,
            f"the native library was built with CUDA {cuda}, and the driver serves {machine.driver_cuda}",
            f"a driver from {_DRIVERS.get(_major(cuda), 'a newer branch')} on, or the toolkit of CUDA "
            f"{_major(machine.driver_cuda)}: CUDACXX=/path/to/its/nvcc {rebuild()}",
        )
    held = tuple(machine.build.get("cuda_architectures", "").split())
    for name, capability in machine.gpus:
        if _serves(machine.torch_archs, capability) and not _serves(held, capability):
            arch = capability.replace(".", "")
            yield Finding(
                True,
                f"the native library holds no kernels for {name} (compute capability {capability})",
                f"BAT_FAST_ARCHS={arch} {rebuild()}",
            )


def _toolkit(machine: Machine) -> Iterator[Finding]:
    if machine.nvcc is None:
        yield Finding(False, "no CUDA toolkit, which only building the CUDA kernels needs")
    elif _numbers(machine.nvcc) < _OLDEST_NVCC:
        cure = "a toolkit from 12 on, and CUDACXX=/path/to/its/nvcc where several are installed"
        yield Finding(True, f"nvcc is of CUDA {machine.nvcc}, too old to build the CUDA kernels", cure)
    else:
        yield Finding(False, f"CUDA toolkit {machine.nvcc}")


def _dali(machine: Machine) -> Iterator[Finding]:
    if not machine.dali:
        yield Finding(False, "no DALI: images are decoded by the other loaders")
        return
    if len(machine.dali) > 1:
        both = " ".join(machine.dali)
        kept = _dali_for(machine)
        yield Finding(
            True,
            f"{' and '.join(machine.dali)} overwrite each other",
            f"pip uninstall {both}, then pip install {kept}",
        )
        return
    ((package, release),) = machine.dali.items()
    wanted = _dali_for(machine)
    if machine.dali_problem:
        yield Finding(True, machine.dali_problem, f"pip install --force-reinstall {package}")
    elif _numbers(release) < _OLDEST_DALI:
        yield Finding(True, f"DALI {release} is older than 2.4", f"pip install -U {package}")
    elif machine.gpus and package > wanted:  # the one for CUDA 12 runs on newer drivers too
        served = f"the driver serves CUDA {machine.driver_cuda}"
        yield Finding(
            True,
            f"{package} needs CUDA 13, and {served}",
            f"pip uninstall {package}, then pip install {wanted}",
        )
    else:
        yield Finding(False, f"DALI {release} ({package})")


def _dali_for(machine: Machine) -> str:
    """The package of DALI for the driver, or for torch where there is none."""
    cuda = machine.driver_cuda or machine.torch_cuda or "13.0"
    return "nvidia-dali-cuda120" if _major(cuda) < 13 else "nvidia-dali-cuda130"


def _of_torch(machine: Machine) -> str:
    return f"CUDA {machine.torch_cuda}" if machine.torch_cuda else "the CPU alone"


def _serves(archs: tuple[str, ...], capability: str) -> bool:
    """Whether a GPU runs one of ``archs``, as torch (sm_90, compute_90) or CMake (90-real, 90) write them.

    Machine code runs on the same major version, of the same minor one or a later; PTX on all that is later.
    """
    major, minor = map(int, capability.split("."))
    for arch in archs:
        if not (found := re.search(r"(\d+)(\d)[af]?(?:-\w+)?$", arch)):
            continue
        held = int(found[1]), int(found[2])
        machine_code = not arch.startswith("compute_") and not arch.endswith("-virtual")
        ptx = not arch.startswith("sm_") and not arch.endswith("-real")
        if (machine_code and held[0] == major and held[1] <= minor) or (ptx and held <= (major, minor)):
            return True
    return False


def _numbers(text: str | None) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(map(int, re.findall(r"\d+", text or "0")[:2]))


def _major(text: str) -> int:
    return _numbers(text)[0]
