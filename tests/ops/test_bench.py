"""The benchmark of each operator: there are cases of it on both devices, and its small calls run."""

import sys

import pytest
import torch
from words import FOR_CPUS, ROOT, WORDS

from bat_fast import _native

sys.path.insert(0, str(ROOT / "bench"))
from operators import Inputs, modules, tensors

BENCHES = {module.__name__.rpartition(".")[2]: module for module in modules()}


def test_they_are_found():
    assert list(BENCHES) == WORDS


@pytest.mark.parametrize("word", WORDS)
def test_its_cases_are_of_native_kernels(word):
    for device in ("cpu", "cuda"):
        cases = list(BENCHES[word].cases(Inputs(device)))
        assert bool(cases) == (device == "cpu" or word not in FOR_CPUS)
        assert all(_native.is_native(case.kernel or case.operator, "cpu") for case in cases)
        assert len({case.name for case in cases}) == len(cases)


@pytest.mark.parametrize("word", WORDS)
def test_its_small_calls_are_finite_and_repeat(word, device):
    twice = [list(BENCHES[word].small(Inputs(device, torch.Generator().manual_seed(7)))) for _ in range(2)]
    assert bool(twice[0]) == (word not in FOR_CPUS)
    for call, again in zip(*twice, strict=True):
        for a, b in zip(tensors(call.run()), tensors(again.run()), strict=True):
            assert a.isfinite().all()
            assert torch.equal(a, b)
