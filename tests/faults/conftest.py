"""A small tree of images to damage, and the count of what was tried."""

import pytest
from tally import tally

from bat_fast.data.generate import write_tiny_imagenet


@pytest.fixture
def tiny_copy(tmp_path):
    """Tiny ImageNet in its original layout, 3 classes of 8 + 2 images."""
    return write_tiny_imagenet(tmp_path / "tiny", classes=3, train=8, val=2)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    counted = item.path.stem == "test_flips"  # bit by bit
    if call.when == "call" and not report.skipped and not counted:
        words = item.originalname.removeprefix("test_").replace("_", " ")
        tally("cases", f"`{item.path.stem}`: {words}", 1, 0, int(report.failed))
    return report
