"""The files of MNIST and of the sets that took over its layout (IDX), packed with gzip or not."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bat_fast.data.sets._download import download
from bat_fast.data.source import Source, Splits, divide, pixel_stats

_BYTES = 0x08  # the type of all these files


def load_idx(
    dataset: str, name: str, classes: tuple[str, ...], *, seed: int, root: Path | None, val: int
) -> Splits:
    """Read ``train-images-idx3-ubyte`` and its three companions, each with or without ``.gz``.

    They lie in ``root``, in ``root/raw`` or, as torchvision puts them, in ``root/DATASET/raw``. What is not
    there is downloaded by torchvision. Ids count the training and then the test images.

    Args:
        dataset: its class in torchvision.
        name: of the data set.
        classes: their names.
        seed: which training images validate.
        root: the folder; None is ``data``.
        val: how many of them, stratified.

    Raises:
        OSError: the set is not there and cannot be downloaded. ValueError: a file is not complete.
    """
    root = Path("data") if root is None else root
    folder = _find(root, dataset)
    if folder is None:
        download(dataset, root)
        folder = root / dataset / "raw"
    images, labels = (
        [_read(folder, f"{part}-{kind}-ubyte", kind) for part in ("train", "t10k")]
        for kind in ("images-idx3", "labels-idx1")
    )
    for x, y, part in zip(images, labels, ("train", "t10k"), strict=True):
        if len(x) != len(y):
            raise ValueError(f"{folder}: {len(x)} images and {len(y)} labels of {part}; unpack both again")
    store, numbers = torch.cat(images)[:, None], torch.cat(labels).long()
    every = torch.arange(len(numbers))
    mean, std = pixel_stats(store[: len(labels[0])])
    whole = Source(store, numbers, every, len(classes), name, classes, mean, std, rows=every)
    return divide(whole, len(labels[0]), val, seed)


def _find(root: Path, dataset: str) -> Path | None:
    for folder in (root / dataset / "raw", root / "raw", root):
        if _file(folder, "train-images-idx3-ubyte") is not None:
            return folder
    return None


def _file(folder: Path, name: str) -> Path | None:
    # Archives of other sources write a dot in place of the last dash but one.
    for path in (folder / name, folder / f"{name}.gz", folder / name.replace("-idx", ".idx")):
        if path.is_file():
            return path
    return None


def _read(folder: Path, name: str, kind: str) -> Tensor:
    """[M, 28, 28] or [M] uint8, as the head of the file says."""
    path = _file(folder, name)
    if path is None:
        raise FileNotFoundError(
            f"{folder / name}.gz is missing: unpack the set again, or give another --data.root"
        )
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked ({error}): download it again") from None
    axes = int(kind[-1])
    sizes = [int.from_bytes(content[4 * axis + 4 : 4 * axis + 8]) for axis in range(axes)]
    start = 4 * axes + 4
    if content[:4] != bytes((0, 0, _BYTES, axes)) or len(content) != start + int(np.prod(sizes)):
        raise ValueError(f"{path} is no complete IDX file of bytes: download it again")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(sizes).copy())
