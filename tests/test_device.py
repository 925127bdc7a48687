"""The device that is picked is the current one."""

import pytest
import torch

from bat_fast.device import pick_device


@pytest.fixture
def current(monkeypatch) -> list[torch.device]:
    """The devices made current, on a machine of two GPUs."""
    made: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", made.append)
    return made


def test_a_gpu_with_a_number_becomes_the_current_one(current):
    assert pick_device("cuda:1") == "cuda:1"
    assert current == [torch.device("cuda:1")]


@pytest.mark.parametrize("name", ["auto", "cuda", "cpu"])
def test_other_names_leave_the_current_gpu(current, name):
    assert pick_device(name) == name.replace("auto", "cuda")
    assert current == []


def test_a_gpu_that_is_not_there_is_not_made_current(current):
    with pytest.raises(ValueError, match="device 'cuda:2': this machine has 2 GPUs"):
        pick_device("cuda:2")
    assert current == []


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs")
def test_what_names_no_device_meets_the_picked_one():
    before = torch.cuda.current_device()
    try:
        pick_device("cuda:1")
        assert torch.empty(1, device="cuda").device.index == torch.cuda.current_device() == 1
    finally:
        torch.cuda.set_device(before)
