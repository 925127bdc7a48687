"""Uninitialised memory holds NaN in the tests of the operators, so that an unwritten output is seen."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def poisoned_empty() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    assert torch.empty(1).isnan()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest, device: str) -> torch.dtype:
    """The float types of the device that the float64 reference can be compared with."""
    if device == "cuda" and request.param is torch.float64:
        pytest.skip("CUDA kernels take float32, float16 and bfloat16")
    return request.param
