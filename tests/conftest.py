"""What all tests share: few threads, a fresh seed that is printed, poisoned memory."""

import os
import random

import pytest
import torch

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
