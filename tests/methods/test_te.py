"""The memory of temporal ensembling."""

import pytest
import torch
from torch import nn

from bat_fast.batch import Batch
from bat_fast.methods import create


class Answer(nn.Module):
    """Its images are its logits."""

    def forward(self, x):
        return x.flatten(1)


def batch(seed):
    torch.manual_seed(seed)
    x = torch.randn(6, 3, 1, 1, dtype=torch.float64)
    return Batch(x, torch.randint(0, 3, (6,)), torch.tensor([9, 2, 4, 0, 7, 5]))


def test_the_memory_is_the_moving_average_of_the_equation():
    te = create("te", momentum=0.8, start=1, end=3)
    te.prepare(10, 3, "cpu")
    expected = torch.zeros(10, 3, dtype=torch.float64)
    for epoch in range(4):
        data = batch(epoch)
        objective = te.attack_loss(Answer(), data, epoch)
        if epoch == 0:
            assert objective.loss == "ce"
            continue
        expected[data.index] = 0.8 * expected[data.index] + 0.2 * data.x.flatten(1).softmax(1)
        assert torch.allclose(te.state_dict()["memory"], expected)
        assert objective.loss == "ce+te"
        assert torch.allclose(objective.soft, expected[data.index] / expected[data.index].sum(1, True))
        assert objective.soft_weight == te.ramp(epoch)


def test_the_ramp():
    te = create("te", weight=300, start=90, end=150)
    assert te.ramp(89) == 0
    assert te.ramp(90) == pytest.approx(300 * 2.718281828459045**-5)
    assert te.ramp(120) == pytest.approx(300 * 2.718281828459045**-1.25)
    assert te.ramp(150) == te.ramp(199) == 300


def test_trades_weighs_the_squared_error_against_its_beta():
    te = create("te", over="trades", options={"beta": 4}, weight=8, start=0, end=1)
    te.prepare(10, 3, "cpu")
    objective = te.attack_loss(Answer(), batch(0), 1)
    assert (objective.loss, objective.soft_weight) == ("kl+te", 2.0)
    assert torch.equal(objective.reference, batch(0).x.flatten(1))


def test_it_asks_to_be_prepared():
    te = create("te", start=0, end=1)
    with pytest.raises(RuntimeError, match="prepare"):
        te.attack_loss(Answer(), batch(0), 0)


def test_nothing_but_the_inner_method_before_the_start():
    te, inner = create("te", over="mart", start=5, end=6), create("mart")
    te.prepare(10, 3, "cpu")
    data = batch(0)
    terms, plain = (method(Answer(), data, data.x + 0.1, 0) for method in (te, inner))
    assert torch.equal(terms.total, plain.total)
    assert set(terms.metrics) == set(plain.metrics) | {"te"}
    assert terms.metrics["te"] == 0
