"""Every public operator, every argument, every kind of mistake: an error that names the argument.

The messages in full are with each operator's own tests, which bring the right calls; here nothing may slip
through unnamed.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tables import Right, table
from torch import Tensor

from bat_fast import ops

RIGHT: dict[str, Right] = table("RIGHT")


def wrong_tensors(name: str, right: Tensor) -> Iterator[tuple[str, Tensor]]:
    if right.is_floating_point():
        yield "complex", right.to(torch.complex64)
        yield "bool", right.bool()
        yield "int64", right.long()
        yield "float16", right.half() if name != "grad" else right.double()
    else:
        yield "int32", right.int()
        yield "bool", right.bool()
        yield "float32", right.float()
    yield "meta", right.to("meta")
    yield "a dimension more", right[None]
    if right.dim():
        yield "a row less", right[:-1].clone()
    if right.dtype == torch.int64:
        yield "negative", right - 1
        yield "too large", right + 10


def wrong_values(name: str, right: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(right, Tensor):
        yield from wrong_tensors(name, right)
    elif isinstance(right, float):
        yield from (("nan", float("nan")), ("inf", float("inf")), ("negative", -1.0))
    elif isinstance(right, str):
        yield "unknown name", "nonsense"
    elif isinstance(right, int):
        yield from (("2^64", 2**64), ("-2^64", -(2**64)))


def mistakes() -> Iterator[Any]:
    for operator, (arguments, fine) in RIGHT.items():
        tensors = [name for name, right in arguments.items() if isinstance(right, Tensor)]
        for name, right in arguments.items():
            for kind, value in wrong_values(name, right):
                # Where two shapes disagree either argument may be the one that is named.
                names = tensors if kind.startswith("a ") else [name]
                if kind not in fine.get(name, ()):
                    yield pytest.param(operator, name, value, names, id=f"{operator}-{name}-{kind}")


def test_every_public_operator_brings_a_right_call():
    assert set(RIGHT) == set(ops.__all__) - {"is_native"}


@pytest.mark.parametrize("operator", RIGHT)
def test_the_right_call_is_right(operator):
    getattr(ops, operator)(**copied(RIGHT[operator].arguments))


@pytest.mark.parametrize("operator", [name for name, right in RIGHT.items() if right.fine])
def test_what_is_fine_is_fine(operator):
    arguments, fine = RIGHT[operator]
    for name, kinds in fine.items():
        values = dict(wrong_values(name, arguments[name]))
        for kind in kinds:
            getattr(ops, operator)(**copied(arguments) | {name: values[kind]})


def copied(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: a.clone() if isinstance(a, Tensor) else a for name, a in arguments.items()}


@pytest.mark.parametrize(("operator", "name", "value", "names"), list(mistakes()))
def test_a_mistake_is_an_error_that_names_the_argument(operator, name, value, names):
    arguments = copied(RIGHT[operator].arguments)
    before = copied(arguments)
    with pytest.raises((ValueError, TypeError)) as error:
        getattr(ops, operator)(**arguments | {name: value})
    assert any(n in str(error.value) for n in names), error.value
    for kept, original in before.items():
        if isinstance(original, Tensor):
            assert torch.equal(arguments[kept].nan_to_num(7), original.nan_to_num(7)), f"{kept} was changed"
