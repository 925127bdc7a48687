"""Street View House Numbers (Netzer et al. 2011), 99 289 images of 32x32."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from bat_fast._install import install
from bat_fast.data.sets._download import download
from bat_fast.data.source import Shape, Source, Splits, divide, pixel_stats

SHAPE = Shape(10, 3, 32)
_VAL = 1000
TRAIN_IMAGES = 73_257 - _VAL


def load(seed: int, root: Path | None = None, val: int = _VAL) -> Splits:
    """Train and val come from ``train_32x32.mat``, test is ``test_32x32.mat``; their label 10 is digit 0.

    The files are checked against torchvision's checksums; what is not there is downloaded by torchvision.
    Ids count the training and then the test images.

    Args:
        seed: which training images validate.
        root: the folder; None is ``data``.
        val: how many of them, stratified.

    Raises:
        OSError: the set is not there and cannot be downloaded. ValueError: a file is not the published one.
    """
    root = Path("data") if root is None else root
    parts = [_read(root, part) for part in ("train", "test")]
    store, labels = (torch.cat(both) for both in zip(*parts, strict=True))
    train = len(parts[0][1])
    images, every = store.permute(0, 3, 1, 2), torch.arange(len(labels))
    mean, std = pixel_stats(images[:train])
    names = tuple(str(digit) for digit in range(SHAPE.num_classes))
    whole = Source(images, labels, every, len(names), "svhn", names, mean, std, rows=every)
    return divide(whole, train, val, seed)


def _read(root: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images [M, 32, 32, 3] uint8 and digits [M]."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise ImportError(f"SVHN needs scipy: {install('scipy')}") from None
    from torchvision.datasets import SVHN

    _, file, checksum = SVHN.split_list[part][:3]
    path = root / file
    if not path.exists():
        download("SVHN", root, split=part)
    with path.open("rb") as opened:
        if hashlib.file_digest(opened, "md5").hexdigest() != checksum:
            raise ValueError(f"{path} is not the published file (md5): delete it and download it again")
    content = loadmat(str(path))
    images = torch.from_numpy(content["X"]).permute(3, 0, 1, 2).contiguous()  # of [32, 32, 3, M]
    return images, torch.from_numpy(content["y"]).flatten().long() % 10
