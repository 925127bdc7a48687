"""Launch gaps, from the intervals in which kernels ran; no GPU is needed for the arithmetic."""

import time
from types import SimpleNamespace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from bat_fast.measure import launch_gaps as gaps
from bat_fast.measure.launch_gaps import idle_share, kernels, launch_gaps, launches


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


def event(start, end, device="CUDA", name_only=False, name=""):
    return SimpleNamespace(
        name=name,
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
    assert launches(lambda: pytest.fail("called for nothing"), "cpu") is None


@pytest.fixture
def profiled(monkeypatch):
    """What a profiler would have seen."""
    events = []

    class Recorder:
        def __init__(self, activities):
            assert ProfilerActivity.CUDA in activities

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def events(self):
            return events

    monkeypatch.setattr(gaps, "profile", Recorder)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    return events


def test_the_gaps_between_calls_count_too(profiled):
    share = launch_gaps(lambda: profiled.append(event(10 * len(profiled), 10 * len(profiled) + 5)), "cuda")
    assert share == pytest.approx(10 / 25)


def test_what_the_host_starts_is_counted_by_its_name(profiled):
    def run():
        for name in (
            "aten::add",
            "cudaLaunchKernel",
            "cudaGraphLaunch",
            "cudaLaunchKernel",
            "cudaEventQuery",
        ):
            profiled.append(event(0, 1, device="CPU", name=name))
        profiled.append(event(0, 1, name="cudaLaunchKernel"))

    assert launches(run, "cuda") == {"cudaLaunchKernel": 2, "cudaGraphLaunch": 1}


@pytest.mark.cuda
def test_the_launches_of_a_gpu_are_found():
    x = torch.rand(64, 64, device="cuda")
    y = x.clone()
    found = launches(lambda: (x.add_(1), x.mul_(2), y.copy_(x)), "cuda")
    assert found.total() == 3
    assert sum(count for name, count in found.items() if "Kernel" in name) in (2, 3)


@pytest.mark.cuda
def test_a_gpu_that_waits_for_the_host_is_seen():
    x = torch.rand(4096, 4096, device="cuda")
    busy = launch_gaps(lambda: [x @ x for _ in range(20)], "cuda")
    waiting = launch_gaps(lambda: (x @ x, torch.cuda.synchronize(), time.sleep(0.05)), "cuda")
    assert 0 <= busy < 0.2 < 0.5 < waiting < 1
