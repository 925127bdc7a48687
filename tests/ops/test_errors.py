"""Every public operator, every argument, every kind of mistake: an error that names the argument.

The messages in full are with each operator's own tests; here nothing may slip through unnamed.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from bat_fast import ops

X, Z, Y = torch.rand(3, 2, 4, 5), torch.randn(3, 6), torch.tensor([0, 5, 2])
PIXELS = torch.randint(0, 256, (7, 4, 5, 3), dtype=torch.uint8)
STEP = {"adv": X.clone(), "grad": X, "clean": X, "step_size": 0.1, "eps": 0.1, "lo": 0.0, "hi": 1.0}

# A call of each operator that is right, with every argument by name.
RIGHT: dict[str, dict[str, Any]] = {
    "linf_step_": STEP,
    "l2_step_": STEP,
    "random_start": {
        "clean": X, "eps": 0.1, "norm": "linf", "seed": 1, "index": Y, "draw": 0, "lo": 0.0, "hi": 1.0,
    },
    "attack_grad": {"logits": Z, "target": Y, "loss": "kl+te", "reference": Z, "soft": Z, "soft_weight": 1.0},
    "bat_loss": {"logits": Z, "target": Y, "alpha": 1.0, "normalize": "batch"},
    "kl_loss": {"clean": Z, "adv": Z},
    "mart_loss": {"clean": Z, "adv": Z, "target": Y, "beta": 5.0},
    "soft_target_loss": {"logits": Z, "soft": Z},
    "discrimination_loss": {
        "features": Z, "target": Y, "temperature": 0.1, "weights": torch.ones(3), "denominator": "all",
    },
    "holistic_weights": {"losses": Z[:, 0], "alpha": 0.1, "r": 0.1, "form": "hd"},
    "holistic_loss": {"losses": Z[:, 0], "alpha": 0.1, "r": 0.1, "form": "hd"},
    "ensemble_targets_": {"memory": torch.rand(9, 6), "index": Y, "logits": Z, "momentum": 0.9},
    "affine": {"x": X, "scale": torch.rand(2), "shift": torch.rand(2)},
    "affine_grad_": {"grad": X.clone(), "y": X, "scale": torch.rand(2), "other": X},
    "smooth_relu": {"x": X, "beta_raw": torch.tensor(2.0)},
    "softplus": {"x": X, "sharpness": 10.0},
    "crop_flip": {
        "images": PIXELS, "index": Y, "pad": 1, "seed": 1, "epoch": 0, "padding": "zero", "sample_ids": Y,
        "dtype": torch.float32, "out": torch.empty(3, 3, 4, 5),
    },
}  # fmt: skip

# What is no mistake: a shape of one's own, a float type that is converted, numbers of any type as weights.
ANY_SHAPE = {("smooth_relu", "x"), ("softplus", "x"), ("attack_grad", "label")}
ANY_FLOAT = {
    ("smooth_relu", "beta_raw"),
    ("smooth_relu", "x"),
    ("softplus", "x"),
    ("soft_target_loss", "soft"),
}
ANY_FLOAT |= {("attack_grad", "reference"), ("attack_grad", "soft")}
ANY_FLOAT |= {("affine", "x"), ("affine", "scale"), ("affine", "shift"), ("affine_grad_", "scale")}
ANY_TYPE = {("discrimination_loss", "weights")}
ALONE = {"softplus", "holistic_weights", "holistic_loss"}  # with no other tensor, any device is right
LABELS = {"target", "index"}


def wrong_tensors(operator: str, name: str, right: Tensor) -> Iterator[tuple[str, Tensor]]:
    if (operator, name) in ANY_TYPE:
        pass
    elif right.is_floating_point():
        yield "complex", right.to(torch.complex64)
        yield "bool", right.bool()
        yield "int64", right.long()
        if (operator, name) not in ANY_FLOAT:
            yield "float16", right.half() if name != "grad" else right.double()
    else:
        yield "int32", right.int()
        yield "bool", right.bool()
        yield "float32", right.float()
    if operator not in ALONE:
        yield "meta", right.to("meta")
    if (operator, name) not in ANY_SHAPE:
        yield "a dimension more", right[None]
    if right.dim() and name not in ("x", "memory", "losses", "images", "features"):
        yield "a row less", right[:-1].clone()
    if name in LABELS and operator != "random_start" and operator != "discrimination_loss":
        yield "negative", right - 1
        yield "too large", right + 10


def mistakes() -> Iterator[Any]:
    for operator, arguments in RIGHT.items():
        for name, right in arguments.items():
            wrong: list[tuple[str, Any]] = []
            if isinstance(right, Tensor):
                wrong = list(wrong_tensors(operator, name, right))
            elif isinstance(right, float):
                wrong = [("nan", float("nan")), ("inf", float("inf"))]
                wrong += [] if name in ("lo", "hi") else [("negative", -1.0)]
            elif isinstance(right, str):
                wrong = [("unknown name", "nonsense")]
            elif isinstance(right, int):
                wrong = [("2^64", 2**64), ("-2^64", -(2**64))]
            for kind, value in wrong:
                # Where two shapes disagree either argument may be the one that is named.
                tensors = [n for n, a in arguments.items() if isinstance(a, Tensor)]
                names = tensors if kind.startswith("a ") else [name]
                yield pytest.param(operator, name, value, names, id=f"{operator}-{name}-{kind}")


def test_every_public_operator_is_here():
    assert set(RIGHT) == set(ops.__all__) - {"is_native"}


@pytest.mark.parametrize("operator", RIGHT)
def test_the_right_call_is_right(operator):
    getattr(ops, operator)(**copied(RIGHT[operator]))


def copied(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: a.clone() if isinstance(a, Tensor) else a for name, a in arguments.items()}


@pytest.mark.parametrize(("operator", "name", "value", "names"), list(mistakes()))
def test_a_mistake_is_an_error_that_names_the_argument(operator, name, value, names):
    arguments = copied(RIGHT[operator])
    before = copied(arguments)
    with pytest.raises((ValueError, TypeError)) as error:
        getattr(ops, operator)(**arguments | {name: value})
    assert any(n in str(error.value) for n in names), error.value
    for kept, original in before.items():
        if isinstance(original, Tensor):
            assert torch.equal(arguments[kept].nan_to_num(7), original.nan_to_num(7)), f"{kept} was changed"
