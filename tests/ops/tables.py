"""What the test of an operator brings for the tests that go over all of them.

``tests/ops/test_<word>.py`` holds up to three tables, by the name of the operator:

- ``RIGHT``: a `Right` call of each public one, of which `test_errors` makes every kind of mistake;
- ``DRAWN``: a function `Draw` -> `Drawn` for each, on which `test_properties` compares kernel and reference;
- ``DRAWN_BY``: instead of that, the test of the file that draws its inputs itself.
"""

from collections.abc import Mapping, Set
from importlib import import_module
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor
from words import WORDS

# For right calls, where nothing depends on the numbers.
SOME_IMAGES, SOME_LOGITS, SOME_LABELS = torch.rand(3, 2, 4, 5), torch.randn(3, 6), torch.tensor([0, 5, 2])

LAYOUTS = ("contiguous", "channels_last", "gaps", "transposed", "offset")
# Errors relative to the largest value of a result: float32 sums of exponentials, and of 1e4 products.
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10}


class Right(NamedTuple):
    """Every argument by name, and for some of them the kinds of `test_errors.mistakes` that are none."""

    arguments: dict[str, Any]
    fine: Mapping[str, Set[str]] = {}


class Drawn(NamedTuple):
    """Arguments of an operator's schema; the place of a tensor that it changes.

    ``unit`` is what a result is made of where it cancels: errors are relative to it, or to the result.
    """

    arguments: list[Any]
    changed: int | None = None
    unit: float = 1e-30


class Draw:
    """Random inputs: what shrinks comes from hypothesis, what does not from a generator that it seeds."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31), label="seed"))
        self.dtype = data.draw(st.sampled_from(list(TOLERANCE)), label="dtype")
        self.scale = data.draw(st.sampled_from([1.0, 0.0, 1e-6, 1e4]), label="scale")

    def integer(self, low: int, high: int) -> int:
        return self.data.draw(st.integers(low, high))

    def one_of(self, *values: Any) -> Any:
        return self.data.draw(st.sampled_from(values))

    def normal(self, *shape: int, scale: float | None = None) -> Tensor:
        values = torch.randn(shape, generator=self.generator) * (self.scale if scale is None else scale)
        return laid_out(values.to(self.dtype), self.one_of(*LAYOUTS))

    def uniform(self, *shape: int) -> Tensor:
        return laid_out(torch.rand(shape, generator=self.generator).to(self.dtype), self.one_of(*LAYOUTS))

    def integers(self, high: int, n: int) -> Tensor:
        values = torch.randint(0, high, (n,), generator=self.generator)
        return self.one_of(values, torch.stack([values, values], dim=1)[:, 0])

    def rows(self, least: int = 1) -> tuple[int, int]:
        return self.integer(1, 20), self.one_of(least, self.integer(least, 40), self.integer(257, 1100))

    def images(self) -> tuple[int, ...]:
        few = st.integers(1, 9)
        return self.data.draw(st.one_of(st.tuples(few), st.tuples(few, few), st.tuples(few, few, few, few)))


def laid_out(t: Tensor, layout: str) -> Tensor:
    """The same values in another order of memory."""
    if layout == "channels_last" and t.dim() == 4:
        return t.clone(memory_format=torch.channels_last)
    if layout == "gaps":
        return torch.stack([t, torch.full_like(t, torch.nan)], dim=-1)[..., 0]
    if layout == "transposed" and t.dim() > 1:
        return t.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == "offset":  # not aligned to a vector
        return torch.cat([t.new_full((1,), torch.nan), t.flatten()])[1:].view(t.shape)
    return t.clone(memory_format=torch.contiguous_format)


def table(name: str) -> dict[str, Any]:
    """The tables ``name`` of all operators' tests in one."""
    return {
        operator: entry
        for word in WORDS
        for operator, entry in getattr(import_module(f"test_{word}"), name, {}).items()
    }
