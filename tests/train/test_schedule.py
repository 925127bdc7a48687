import pytest

from bat_fast.config import OptimConfig
from bat_fast.train.schedule import learning_rate


def rates(total=100, **options):
    optim = OptimConfig(lr=0.2, **options)
    return [learning_rate(optim, step, total) for step in range(total)]


def test_constant():
    assert set(rates(schedule="constant")) == {0.2}


def test_multistep_drops_at_the_milestones():
    values = rates(schedule="multistep", milestones=(0.5, 0.75), gamma=0.1)
    assert values[49] == 0.2
    assert values[50] == values[74] == pytest.approx(0.02)
    assert values[75] == values[99] == pytest.approx(0.002)


def test_cosine_falls_from_the_peak_to_almost_zero():
    values = rates(schedule="cosine")
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(0.2, rel=1e-3)
    assert 0 < values[-1] < 1e-3


def test_cyclic_rises_then_falls_linearly():
    values = rates(schedule="cyclic")
    peak = values.index(max(values))
    assert peak in (39, 40)
    assert values[:40] == sorted(values[:40])
    assert values[40:] == sorted(values[40:], reverse=True)
    assert max(values) == pytest.approx(0.2, rel=0.02)
    assert min(values) > 0


def test_straight_lines_between_milestones():
    import numpy as np

    marks, factors = (0.1, 0.1, 0.4, 0.8), (1.0, 0.5, 0.5, 0.05)
    values = rates(schedule="linear", milestones=marks, factors=factors)
    progress = (np.arange(100) + 0.5) / 100  # a milestone that is there twice is a jump
    wanted = np.interp(progress, [0, 0.1, 0.1 + 1e-12, 0.4, 0.8], [0, 1, 0.5, 0.5, 0.05])
    assert values == pytest.approx((0.2 * wanted).tolist())


def test_warmup_rises_from_zero():
    values = rates(schedule="constant", warmup=0.1)
    assert values[0] == pytest.approx(0.02)
    assert values[9] == values[50] == pytest.approx(0.2)


@pytest.mark.parametrize("schedule", ["constant", "multistep", "cosine", "cyclic"])
def test_one_step_runs(schedule):
    assert rates(total=1, schedule=schedule, warmup=0.5)[0] > 0
