"""A training run small enough for a test."""

import dataclasses

import pytest

from bat_fast.config import AttackConfig, EvalConfig, OptimConfig, Ratio, TrainConfig

SMALL = TrainConfig(
    epochs=4,
    batch_size=256,
    device="cpu",
    method={"name": "bat"},
    attack=AttackConfig(eps=Ratio("1/10"), steps=2),
    optim=OptimConfig(lr=0.05, schedule="cyclic"),
    eval=EvalConfig(val_steps=2, test_steps=3),
)


@pytest.fixture(scope="session")
def small():
    """small(epochs=2, ...) -> TrainConfig."""
    return lambda **changes: dataclasses.replace(SMALL, **changes)
