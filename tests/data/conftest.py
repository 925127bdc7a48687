"""Small trees in the exact layouts that data sets come in."""

import shutil

import pytest

from bat_fast.data import load
from bat_fast.data.generate import write_tiny_imagenet


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    """Tiny ImageNet in its original layout, 5 classes of 22 + 4 images; not to be written to."""
    return write_tiny_imagenet(tmp_path_factory.mktemp("data") / "tiny", classes=5, train=22, val=4)


@pytest.fixture
def tiny_copy(tiny_root, tmp_path):
    """A copy of `tiny_root` to damage."""
    return shutil.copytree(tiny_root, tmp_path / "tiny")


@pytest.fixture(scope="session")
def tiny(tiny_root):
    """The splits of `tiny_root`."""
    return load("tiny_imagenet", seed=0, root=tiny_root)
