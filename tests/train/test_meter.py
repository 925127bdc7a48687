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
