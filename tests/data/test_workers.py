"""The loader of worker processes hands a batch to a GPU without waiting for what the GPU computes."""

from contextlib import nullcontext

import pytest
import torch
from test_loaders import PLAIN, memory
from torch._subclasses.fake_tensor import FakeTensorMode

from bat_fast.data import create_loader


@pytest.mark.parametrize("failed", [{}, {2: "broken", 5: "broken"}])
def test_what_goes_to_a_gpu_is_pinned_and_not_waited_for(failed, monkeypatch):
    loader = create_loader(memory(), 8, kind="torch", on_corrupt="skip", **PLAIN)
    part, images = torch.arange(10, 18), torch.zeros(8, 12, 12, 3, dtype=torch.uint8)
    pinned, sent = [images], []  # the DataLoader has pinned the images

    def pin(tensor):
        pinned.append(tensor.clone())
        return pinned[-1]

    def send(tensor, device, non_blocking=False):
        assert any(tensor is known for known in pinned)
        sent.append((torch.device(device), non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", send)
    loader.device = torch.device("cuda:0")
    with nullcontext() if failed else FakeTensorMode(allow_non_fake_inputs=True):
        pixels = loader._batch(part, images, failed)
    monkeypatch.undo()
    assert sent == [(loader.device, True)] * (3 if failed else 2)
    if not failed:
        assert pixels.rows.device == loader.device  # made there


def test_rows_and_places_leave_out_what_is_broken():
    loader = create_loader(memory(), 8, kind="torch", on_corrupt="skip", **PLAIN)
    part, images = torch.arange(10, 18), torch.zeros(8, 12, 12, 3, dtype=torch.uint8)
    whole = loader._batch(part, images, {})
    assert whole.rows.tolist() == list(range(8))
    assert whole.where.tolist() == part.tolist()
    pixels = loader._batch(part, images, {2: "broken", 5: "broken"})
    assert pixels.rows.tolist() == [0, 1, 3, 4, 6, 7]
    assert pixels.where.tolist() == [10, 11, 13, 14, 16, 17]
    assert loader.skipped == {12: "broken", 15: "broken"}


@pytest.mark.cuda
def test_a_batch_waits_for_no_gpu():
    loader = create_loader(memory(), 8, kind="torch", device="cuda", **PLAIN)
    list(loader)  # what is made once is made
    loader.set_epoch(1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in loader:
            pass
    finally:
        torch.cuda.set_sync_debug_mode("default")
