"""What this installation is made of: for bug reports, and to see what runs natively."""

from __future__ import annotations

import os
from typing import Any

import torch

from bat_fast import _native, ops
from bat_fast.data.loaders import dali
from bat_fast.device import cpu_model
from bat_fast.runs.provenance import versions


def collect_info() -> dict[str, Any]:
    """Versions, devices, the build of the native library, and who answers each operator."""
    cuda = torch.cuda.is_available()
    return {
        **{name: value for name, value in versions("cpu").items() if name != "device"},
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        if cuda
        else [],
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "dali": dali.version(),
        "build": _native.build_info(),
        "operators": {
            name: {device: _implementation(name, device) for device in ("cpu", "cuda")}
            for name in sorted(_native.operators())
        },
    }


def print_info(info: dict[str, Any]) -> None:
    """`collect_info` as lines of text."""
    gpus = ", ".join(info["gpus"]) or "none"
    rows = [
        ("bat_fast", info["bat_fast"]),
        ("torch", info["torch"]),
        ("python", info["python"]),
        ("cuda", info["cuda"] or "torch has none"),
        ("gpus", gpus),
        ("dali", info["dali"]),
        ("cpu", f"{info['cpu']}, {_counted(info['cores'], 'core')}"),
        ("threads", f"torch computes with {_counted(info['threads'], 'thread')} (OMP_NUM_THREADS)"),
    ]
    build = {key: value for key, value in info["build"].items() if value}
    if info["build"]:
        build["cuda"] = build.get("cuda") or _native.slow_on_gpu(build) or "no"
        rows += [(f"build {key}", str(value)) for key, value in build.items()]
    else:
        rows.append(("build", "no native library: every operator runs its reference"))
    width = max(len(name) for name in [*dict(rows), *info["operators"]]) + 2
    for name, value in rows:
        print(f"{name:<{width}}{value}")
    print(f"\n{'operator':<{width}}{'cpu':<12}cuda")
    for name, answers in info["operators"].items():
        print(f"{name:<{width}}{answers['cpu']:<12}{answers['cuda']}")


def _implementation(name: str, device: str) -> str:
    return "native" if ops.is_native(name, device) else "reference"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
