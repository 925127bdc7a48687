"""What `doctor` looks at on this machine: driver, torch, toolkit, DALI and the native library."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import warnings
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bat_fast._environ import switched_off

_DISPLAY = "0x03"  # the class of graphics cards and 3D controllers on the PCI bus
_NVIDIA = "0x10de"


@dataclass(frozen=True)
class Machine:
    """What was found. Versions are texts like ``13.0``; None stands for what is not there."""

    torch: str | None = None
    torch_problem: str = ""  # why torch cannot be imported
    torch_cuda: str | None = None  # of the toolkit that torch was built with
    torch_archs: tuple[str, ...] = ()  # what torch holds kernels for: sm_90
    torchvision_problem: str = ""
    card: bool = False  # an NVIDIA GPU is on the bus, whether or not it can be used
    driver_cuda: str | None = None  # the newest CUDA that the driver serves
    cuda_problem: str = ""  # why torch finds no GPU
    hidden: bool = False  # CUDA_VISIBLE_DEVICES names none
    gpus: tuple[tuple[str, str], ...] = ()  # name and compute capability: ("NVIDIA H100", "9.0")
    nvcc: str | None = None
    dali: dict[str, str] = field(default_factory=dict)  # installed packages of DALI, and their versions
    dali_problem: str = ""
    bat_fast: str = ""
    library: bool = False  # the file is there
    library_problem: str = ""  # why it does not load
    switched_off: bool = False
    build: dict[str, Any] = field(default_factory=dict)  # what is recorded beside the library
    references: tuple[str, ...] = ()  # operators without a kernel on the CPU


def probe() -> Machine:
    """Look at this machine. Takes a second or two, as torch is loaded; nothing is changed."""
    found: dict[str, Any] = {"card": _has_card(), "driver_cuda": _driver_cuda(), "nvcc": _nvcc()}
    try:
        import torch
    except (ImportError, OSError) as error:
        return Machine(**found, torch_problem=_line(error))
    found |= {"torch": torch.__version__, "torch_cuda": torch.version.cuda, **_native_library(), **_dali()}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            numbers = range(torch.cuda.device_count())
            found["torch_archs"] = tuple(torch.cuda.get_arch_list())
            found["gpus"] = tuple(
                (torch.cuda.get_device_name(n), "{}.{}".format(*torch.cuda.get_device_capability(n)))
                for n in numbers
            )
    found["cuda_problem"] = _line(said[0].message) if said else ""
    found["hidden"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1")
    try:
        import torchvision  # noqa: F401
    except ModuleNotFoundError:
        pass  # only training from folders needs it, and says so
    except (ImportError, OSError, RuntimeError) as error:
        found["torchvision_problem"] = _line(error)
    return Machine(**found)


def _native_library() -> dict[str, Any]:
    from bat_fast import __version__, _native

    folder = _native._FOLDER
    record = folder / "build.json"
    return {
        "bat_fast": __version__,
        "library": (folder / "libbat_fast.so").exists(),
        "library_problem": _native.load_problem(),
        "switched_off": switched_off(os.environ, "BAT_FAST_NATIVE"),
        "build": json.loads(record.read_text()) if record.exists() else {},
        "references": tuple(n for n in _native.operators() if not _native.is_native(n, "cpu")),
    }


def _dali() -> dict[str, Any]:
    from bat_fast.data.loaders import dali

    there = {}
    for package in ("nvidia-dali-cuda120", "nvidia-dali-cuda130"):
        try:
            there[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"dali": there, "dali_problem": (dali.missing() or "") if there else ""}


def _has_card() -> bool:
    for device in Path("/sys/bus/pci/devices").glob("*"):
        try:
            kind, vendor = ((device / name).read_text().strip() for name in ("class", "vendor"))
        except OSError:
            continue
        if vendor == _NVIDIA and kind.startswith(_DISPLAY):
            return True
    return False


def _driver_cuda() -> str | None:
    """The newest CUDA that the driver serves, which it tells without a GPU being touched."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def _nvcc() -> str | None:
    command = os.environ.get("CUDACXX") or shutil.which("nvcc")
    command = command or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if not command:
        return None
    try:
        said = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    release = re.search(r"release (\d+\.\d+)", said)
    return release[1] if release else None


def _line(error: object) -> str:
    return " ".join(str(error).split())
