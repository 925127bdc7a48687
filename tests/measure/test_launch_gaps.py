"""Launch gaps, from the intervals in which kernels ran; no GPU is needed for the arithmetic."""

import time
from types import SimpleNamespace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from bat_fast.measure import launch_gaps as gaps
from bat_fast.measure.launch_gaps import idle_share, kernels, launch_gaps


@pytest.mark.parametrize(
    ("intervals", "share"),
    [
        ([], None),
        ([(5, 5)], None),
        ([(0, 4)], 0),
        ([(0, 4), (4, 10)], 0),
        ([(10, 14), (18, 20)], 0.4),
        ([(18, 20), (10, 14)], 0.4),  # in any order
        ([(10, 14), (11, 13), (18, 20)], 0.4),  # one inside another, on a second stream
        ([(10, 14), (12, 16), (18, 20)], 0.2),
        ([(0, 1), (0, 1), (9, 10)], 0.8),
        ([(1e15, 1e15 + 3), (1e15 + 6, 1e15 + 8)], 0.375),
    ],
)
def test_the_idle_share_is_what_no_interval_covers(intervals, share):
    assert idle_share(intervals) == (None if share is None else pytest.approx(share))


def event(start, end, device="CUDA", name_only=False):
    return SimpleNamespace(
        time_range=SimpleNamespace(start=start, end=end),
        device_type=SimpleNamespace(name=device),
        is_user_annotation=name_only,
    )


def test_only_what_ran_on_the_device_counts():
    events = [event(0, 2), event(1, 9, device="CPU"), event(0, 9, name_only=True), event(6, 8)]
    assert kernels(events) == [(0, 2), (6, 8)]


def test_the_events_of_torch_have_what_is_read():
    with profile(activities=[ProfilerActivity.CPU]) as profiler, record_function("a range"):
        torch.ones(3).add_(1)
    events = list(profiler.events())
    assert {found.is_user_annotation for found in events} == {True, False}
    assert kernels(events) == []
    for found in events:
        found.device_type = torch.autograd.DeviceType.CUDA
    assert len(kernels(events)) == len(events) - 1
    assert 0 <= idle_share(kernels(events)) < 1


def test_a_cpu_has_no_launch_gaps():
    assert launch_gaps(lambda: pytest.fail("called for nothing"), "cpu") is None


def test_the_gaps_between_calls_count_too(monkeypatch):
    events = []

    class Recorder:
        def __init__(self, activities):
            assert activities == [ProfilerActivity.CUDA]

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def events(self):
            return events

    monkeypatch.setattr(gaps, "profile", Recorder)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    share = launch_gaps(lambda: events.append(event(10 * len(events), 10 * len(events) + 5)), "cuda")
    assert share == pytest.approx(10 / 25)


@pytest.mark.cuda
def test_a_gpu_that_waits_for_the_host_is_seen():
    x = torch.rand(4096, 4096, device="cuda")
    busy = launch_gaps(lambda: [x @ x for _ in range(20)], "cuda")
    waiting = launch_gaps(lambda: (x @ x, torch.cuda.synchronize(), time.sleep(0.05)), "cuda")
    assert 0 <= busy < 0.2 < 0.5 < waiting < 1
