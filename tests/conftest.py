"""What all tests share: a fresh seed that is printed, the devices, a training run small enough for a test."""

import dataclasses
import os
import random

import pytest
import torch

from bat_fast.config import AttackConfig, EvalConfig, OptimConfig, Ratio, TrainConfig

# In the environment, for the programs that tests start.
SEED = int(os.environ.setdefault("BAT_FAST_TEST_SEED", str(random.SystemRandom().randrange(2**31))))


def pytest_report_header() -> str:
    return f"random inputs: BAT_FAST_TEST_SEED={SEED}"


@pytest.fixture(autouse=True)
def fresh_random_inputs() -> None:
    torch.manual_seed(SEED)


@pytest.fixture(params=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def device(request: pytest.FixtureRequest) -> str:
    """Every device of this machine."""
    return request.param


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
