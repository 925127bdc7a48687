"""Nobody changes what a method computes without noticing: ten losses of each, as they were."""

import json

import golden
import pytest
import torch


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("method", golden.METHODS)
def test_trajectory(method):
    stored = json.loads(golden.FILE.read_text())[method]
    # In float64 the steps of the attack are the same on every CPU but where a gradient is 0 to 16 digits.
    assert golden.losses(method) == pytest.approx(stored, rel=1e-4), "see golden.py if this is intended"
