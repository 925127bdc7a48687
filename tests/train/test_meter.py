import pytest
import torch

from bat_fast.methods.base import Terms
from bat_fast.train.meter import EpochMeter


def terms(loss, accuracy, samples):
    return Terms(torch.tensor(loss), torch.zeros(samples), {"robust_acc": torch.tensor(accuracy)})


def test_means_are_over_samples_not_batches():
    meter = EpochMeter("cpu")
    assert meter.means() == {}
    meter.add(terms(1.0, 0.5, 300), 300)
    meter.add(terms(4.0, 1.0, 100), 100)
    assert meter.means() == pytest.approx({"train/loss": 1.75, "train/robust_acc": 0.625})


def test_speed():
    meter = EpochMeter("cpu")
    with meter.attack():
        sum(range(100_000))
    meter.add(terms(1.0, 0.5, 10), 10)
    speed = meter.speed()
    assert speed["perf/img_s"] > 0
    assert speed["perf/attack_ms"] > 0
    assert speed["perf/peak_mem_mib"] > 10


def test_no_attack_costs_nothing():
    assert EpochMeter("cpu").speed()["perf/attack_ms"] == 0


def test_the_gpu_that_is_named_is_measured(monkeypatch):
    asked = []

    class Event:
        def __init__(self, *, enable_timing):
            assert enable_timing

        def record(self, stream):
            asked.append(f"event on {stream}")

        def elapsed_time(self, _):
            return 12.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: asked.append(f"wait for {device}"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: asked.append(f"reset {device}"))
    monkeypatch.setattr(
        torch.cuda, "max_memory_allocated", lambda device: asked.append(f"peak of {device}") or 5 << 20
    )
    meter = EpochMeter("cuda:1")
    with meter.attack():
        asked.append("attack")
    speed = meter.speed()
    assert (speed["perf/attack_ms"], speed["perf/peak_mem_mib"]) == (12.0, 5.0)
    event = "event on stream of cuda:1"
    assert asked == ["reset cuda:1", event, "attack", event, "wait for cuda:1", "peak of cuda:1"]
