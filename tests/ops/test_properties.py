"""Any shape, layout, dtype and scale: the kernels against the references in float64."""

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from tables import TOLERANCE, Draw, Drawn, table
from torch import Tensor

from bat_fast import _native

SEED = int(os.environ["BAT_FAST_TEST_SEED"])
DRAWN: dict[str, Callable[[Draw], Drawn]] = table("DRAWN")
DRAWN_BY: dict[str, Callable[..., None]] = table("DRAWN_BY")
# A plan is no free input: test_network.py builds networks layer by layer.
NETWORKS = {
    "network_gradient",
    "network_attack_",
    "network_ascent_",
    "network_squares_",
    "network_walk_",
}


def test_every_operator_is_drawn_once():
    assert sorted([*DRAWN, *DRAWN_BY, *NETWORKS]) == sorted(_native.operators())
    assert all(test.__name__.startswith("test_") for test in DRAWN_BY.values())


def outcome(run: Callable[..., Any], arguments: list[Any], changed: int | None) -> list[Tensor]:
    result = run(*arguments)
    if changed is not None:
        return [arguments[changed]]
    return [result] if isinstance(result, Tensor) else list(result)


def wide(argument: Any) -> Any:
    """In float64, on memory of its own."""
    if isinstance(argument, Tensor) and argument.is_floating_point():
        return argument.to(torch.float64, copy=True, memory_format=torch.contiguous_format)
    return argument


@pytest.mark.parametrize("name", DRAWN)
@seed(SEED)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_kernel_is_the_reference_in_float64(name, data):
    draw = Draw(data)
    call = DRAWN[name](draw)
    exact = outcome(_native.reference_of(name), [wide(a) for a in call.arguments], call.changed)
    ours = outcome(getattr(torch.ops.bat_fast, name), call.arguments, call.changed)
    for got, want in zip(ours, exact, strict=True):
        assert got.shape == want.shape
        largest = want[want.isfinite()].abs().max().item() if want.isfinite().any() else 0.0
        close = {"rtol": 0, "atol": TOLERANCE[draw.dtype] * max(largest, call.unit), "equal_nan": True}
        torch.testing.assert_close(got.double(), want.double(), **close)
