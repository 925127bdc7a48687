"""What produced a result: versions and source revision."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import torch

from bat_fast import __version__, _native


def versions(device: str) -> dict[str, str | None]:
    """Versions of what computed on ``device``, and its name."""
    cuda = torch.device(device).type == "cuda"
    return {
        "bat_fast": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "device": torch.cuda.get_device_name(device) if cuda else platform.machine() or "cpu",
    }


def git_revision() -> str | None:
    """The revision of bat_fast: that of its checkout, else the one the native library was built from."""
    checkout = Path(__file__).parents[2]
    if (checkout / ".git").exists():
        command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            pass
    revision = _native.build_info().get("git")
    return str(revision) if revision else None
