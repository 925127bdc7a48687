"""The two layouts in which CIFAR is published: pickled and binary."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from bat_fast.data.sets._download import download
from bat_fast.data.source import Source, Splits, divide, pixel_stats

_PIXELS = 3 * 32 * 32
_ALLOWED = {  # what a pickle of arrays of bytes needs, and nothing that runs code
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}


@dataclass(frozen=True)
class Layout:
    """Where one of the two sets keeps its images, labels and class names, pickled and binary.

    Args:
        name: of the data set.
        dataset: its class in torchvision, which knows address and checksums.
        python: the folder of the pickled files, as the archive unpacks it.
        binary: the folder of the binary files.
        train: the files of the training images; in the binary folder they end in ``.bin``.
        test: the file of the test images, likewise.
        label: the entry of a pickled file that holds the labels.
        label_bytes: labels at the start of each binary record, a byte each; the last of them is the class.
        names: the pickled file with the names of the classes, and its entry that holds them.
        num_classes: number of classes.
    """

    name: str
    dataset: str
    python: str
    binary: str
    train: tuple[str, ...]
    test: str
    label: str
    label_bytes: int
    names: tuple[str, str]
    num_classes: int


def load_cifar(layout: Layout, seed: int, root: Path | None, val: int) -> Splits:
    """Read CIFAR from ``root``, from the pickled or the binary folder or out of their parent.

    The pickled files are checked against torchvision's checksums and read without running code; of the
    binary ones the size. A set that is not there is downloaded by torchvision. Ids count the training and
    then the test images, in the order of the files.

    Args:
        layout: which set.
        seed: which training images validate.
        root: the folder; None is ``data``.
        val: how many of them, stratified.

    Raises:
        OSError: the set is not there and cannot be downloaded. ValueError: a file is not the published one.
    """
    root = Path("data") if root is None else root
    folder = _find(layout, root)
    if folder is None:
        download(layout.dataset, root)
        folder = root / layout.python
    read = _read_python if folder.name == layout.python or _is_python(layout, folder) else _read_binary
    parts = [read(layout, folder, file) for file in (*layout.train, layout.test)]
    store = torch.cat([images for images, _ in parts])  # [S, 32, 32, 3]
    labels = torch.cat([labels for _, labels in parts])
    train = len(labels) - len(parts[-1][1])
    images, every = store.permute(0, 3, 1, 2), torch.arange(len(labels))
    mean, std = pixel_stats(images[:train])
    names = _class_names(layout, folder)
    whole = Source(images, labels, every, layout.num_classes, layout.name, names, mean, std, rows=every)
    return divide(whole, train, val, seed)


def _find(layout: Layout, root: Path) -> Path | None:
    for folder in (root / layout.python, root / layout.binary, root):
        if _is_python(layout, folder) or (folder / f"{layout.test}.bin").exists():
            return folder
    return None


def _is_python(layout: Layout, folder: Path) -> bool:
    return (folder / layout.test).is_file()


def _read_python(layout: Layout, folder: Path, file: str) -> tuple[Tensor, Tensor]:
    entry = _unpickle(layout, folder / file)
    data = torch.from_numpy(np.asarray(entry["data"], np.uint8))
    images = data.reshape(-1, 3, 32, 32).permute(0, 2, 3, 1).contiguous()
    return images, torch.tensor(entry[layout.label])


def _read_binary(layout: Layout, folder: Path, file: str) -> tuple[Tensor, Tensor]:
    path = folder / f"{file}.bin"
    _present(path)
    data, record = np.fromfile(path, np.uint8), layout.label_bytes + _PIXELS
    if not len(data) or len(data) % record:
        raise ValueError(f"{path} has {len(data)} bytes, no multiple of {record}: it is not complete")
    rows = torch.from_numpy(data.reshape(-1, record))
    images = rows[:, layout.label_bytes :].reshape(-1, 3, 32, 32).permute(0, 2, 3, 1).contiguous()
    return images, rows[:, layout.label_bytes - 1].long()


def _class_names(layout: Layout, folder: Path) -> tuple[str, ...]:
    file, key = layout.names
    if _is_python(layout, folder):
        return tuple(_unpickle(layout, folder / file)[key])
    text = folder / ("fine_label_names.txt" if layout.label_bytes == 2 else "batches.meta.txt")
    _present(text)
    return tuple(text.read_text().split())


def _present(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: unpack the archive again, or give another --data.root")


def _unpickle(layout: Layout, path: Path) -> dict[str, Any]:
    _present(path)
    from torchvision import datasets

    kind = getattr(datasets, layout.dataset)
    known = dict([*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])])
    with path.open("rb") as file:
        if hashlib.file_digest(file, "md5").hexdigest() != known[path.name]:
            raise ValueError(
                f"{path} is not the published file (md5): delete it and unpack the archive again; images of "
                "your own are --data npz or --data image_folder"
            )
        file.seek(0)
        entry: dict[str, Any] = _Unpickler(file, encoding="latin1").load()
    return entry


class _Unpickler(pickle.Unpickler):
    """Reads arrays and containers only."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        super().__init__(file, encoding=encoding)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise ValueError(f"a CIFAR file asks for {module}.{name}, which arrays of bytes do not need")
        return super().find_class(module, name)
