"""A small tree of images to damage."""

import pytest

from bat_fast.data.generate import write_tiny_imagenet


@pytest.fixture
def tiny_copy(tmp_path):
    """Tiny ImageNet in its original layout, 3 classes of 8 + 2 images."""
    return write_tiny_imagenet(tmp_path / "tiny", classes=3, train=8, val=2)
