"""Data sets that torchvision can fetch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError


def download(dataset: str, root: Path, **options: Any) -> None:
    """Let torchvision fetch ``dataset`` into ``root`` and check it.

    Raises:
        OSError: it cannot; the message says where to put the files by hand.
    """
    from torchvision import datasets

    print(f"{dataset} is not in {root}: downloading it", file=sys.stderr, flush=True)
    try:
        getattr(datasets, dataset)(str(root), download=True, **options)
    except (URLError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise OSError(
            f"{dataset} is not in {root} and cannot be downloaded ({reason}); "
            "give the folder that holds it with --data.root"
        ) from None
