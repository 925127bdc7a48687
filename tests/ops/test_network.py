"""Small networks in one call: against torch's own layers in float64, and against the plain steps."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bat_fast import _native, ops
from bat_fast.ops.network import (
    COLUMNS,
    Map,
    PlanLayer,
    Window,
    layers_of,
    network_attack_,
    network_gradient,
    network_plan,
)

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11}
ROWS = (0, 1, 31, 32, 33, 75)


@pytest.fixture(params=TOLERANCE, ids=str)
def dtype(request):
    return request.param


class Builder:
    """Writes a plan and, side by side, the same network in torch's own words."""

    def __init__(self, images: Map, dtype: torch.dtype) -> None:
        self.dtype, self.layers, self.weights, self.begin = dtype, [], [], 0
        self.functions, self.values = [], 0
        self.last, self.map = self.room(images), images

    def room(self, shape: Map) -> int:
        begin, self.values = self.values, self.values + shape.height * shape.width * shape.channels
        return begin

    def put(self, weight: torch.Tensor) -> int:
        begin, self.begin = self.begin, self.begin + weight.numel()
        self.weights.append(weight.flatten())
        return begin

    def add(self, kind, out, activation, function, **rest) -> int:
        """A layer after the last one; ``function(value, maps)`` says what it computes."""
        source, into = rest.pop("source", self.last), rest.pop("into", self.map)
        before, target, other = self.room(out), self.room(out), rest.pop("other", -1)
        self.layers.append(PlanLayer(kind, source, other, before, target, activation, into, out, **rest))

        def run(maps):
            value = function(maps[source])
            value = value if other < 0 else value + maps[other]
            maps[target] = value if activation is None else getattr(F, activation)(value)

        self.functions.append(run)
        self.last, self.map = target, out
        return target

    def window(self, channels, kernel, stride=(1, 1), pad=(0, 0), activation=None, bias=True, **rest) -> int:
        into = self.map
        weight = (
            torch.randn(channels, into.channels, *kernel, dtype=self.dtype) / (kernel[0] * kernel[1]) ** 0.5
        )
        shift = torch.randn(channels, dtype=self.dtype) if bias else None
        sides = zip(into[:2], kernel, stride, pad, strict=True)
        out = Map(*((n + 2 * p - k) // s + 1 for n, k, s, p in sides), channels)
        places = {"weight": self.put(weight.permute(0, 2, 3, 1)), "bias": self.put(shift) if bias else -1}
        return self.add(
            "window", out, activation, lambda v: F.conv2d(v, wide(weight, v), wide(shift, v), stride, pad),
            window=Window(*kernel, *stride, *pad), **places, **rest,
        )  # fmt: skip

    def affine(self, activation=None) -> int:
        scale, shift = torch.randn(2, self.map.channels, dtype=self.dtype)
        places = {"weight": self.put(scale), "bias": self.put(shift)}
        c = (-1, 1, 1)
        function = lambda v: v * wide(scale, v).view(c) + wide(shift, v).view(c)  # noqa: E731
        return self.add("affine", self.map, activation, function, **places)

    def act(self, activation) -> int:
        return self.add("affine", self.map, activation, lambda v: v)

    def max_pool(self, kernel, stride, pad) -> int:
        sides = zip(self.map[:2], kernel, stride, pad, strict=True)
        out = Map(*((n + 2 * p - k) // s + 1 for n, k, s, p in sides), self.map.channels)
        window = Window(*kernel, *stride, *pad)
        return self.add("max_pool", out, None, lambda v: F.max_pool2d(v, kernel, stride, pad), window=window)

    def mean(self) -> int:
        return self.add("mean", Map(1, 1, self.map.channels), None, lambda v: v.mean((2, 3), keepdim=True))

    def sum(self, other, activation=None) -> int:
        return self.add("sum", self.map, activation, lambda v: v, other=other)

    def linear(self, classes, activation=None) -> int:
        h, w, c = self.map
        weight = torch.randn(classes, c * h * w, dtype=self.dtype) / (c * h * w) ** 0.5
        shift = torch.randn(classes, dtype=self.dtype)
        as_lies = weight.view(classes, c, h, w).permute(0, 2, 3, 1)
        return self.add(
            "window", Map(1, 1, classes), activation,
            lambda v: F.linear(v.flatten(1), wide(weight, v), wide(shift, v))[:, :, None, None],
            into=Map(1, 1, c * h * w), weight=self.put(as_lies), bias=self.put(shift),
        )  # fmt: skip

    def given(self) -> dict:
        weights = torch.cat(self.weights)
        return {"plan": network_plan(self.layers), "weights": weights, "classes": self.map.channels}

    def exact(self, x: torch.Tensor) -> torch.Tensor:
        """Logits in float64."""
        maps = {0: x}
        for run in self.functions:
            run(maps)
        return maps[self.last].flatten(1)


def wide(t, like):
    return None if t is None else t.to(like.dtype)


def mlp(dtype):
    b = Builder(Map(5, 3, 2), dtype)
    b.linear(19, "relu")
    b.linear(7, "silu")
    b.linear(5)
    return b


def convolutions(dtype):
    b = Builder(Map(9, 7, 3), dtype)
    b.affine()
    b.window(13, (3, 2), (2, 1), (1, 0), "relu", bias=False)
    b.window(9, (2, 3), (1, 2), (0, 2), "silu")
    b.act("relu")
    b.mean()
    b.linear(11)
    return b


def residual(dtype):
    b = Builder(Map(6, 6, 1), dtype)
    first = b.window(6, (3, 3), (1, 1), (1, 1), "relu")
    b.affine("silu")
    b.window(6, (3, 3), (1, 1), (1, 1))
    second = b.window(6, (1, 1), activation="relu", other=first)
    b.affine()
    b.sum(second, "silu")
    b.window(6, (1, 1), other=first, bias=False)
    b.mean()
    b.linear(4)
    return b


def pooled(dtype):
    b = Builder(Map(10, 11, 2), dtype)
    b.window(5, (3, 3), (1, 1), (1, 1), "relu")
    both = b.max_pool((3, 2), (2, 2), (1, 1))
    b.window(5, (1, 1), other=both)
    b.max_pool((2, 2), (2, 3), (0, 0))
    b.linear(3)
    return b


NETWORKS = (mlp, convolutions, residual, pooled)


def laid_out(x, layout):
    return x.to(memory_format=torch.channels_last) if layout == "channels_last" else x.clone()


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("make", NETWORKS)
def test_logits_and_gradient(make, rows, dtype):
    network = make(dtype)
    h, w, c = network.layers[0].into if make is not mlp else Map(5, 3, 2)
    x = torch.randn(rows, c, h, w, dtype=dtype)
    grad = torch.randn(rows, network.map.channels, dtype=dtype)
    leaf = x.double().requires_grad_()
    expected = network.exact(leaf)
    (expected_grad,) = torch.autograd.grad(expected, leaf, grad.double())
    for layout, run in itertools.product(
        ("contiguous", "channels_last"), (network_gradient, _native.reference_of("network_gradient"))
    ):
        logits, grad_x = run(laid_out(x, layout), grad, **network.given())
        assert logits.dtype == grad_x.dtype == dtype
        close(logits, expected, TOLERANCE[dtype])
        close(grad_x, expected_grad, TOLERANCE[dtype])


def close(ours, exact, tolerance):
    size = max(float(exact.detach().abs().max()), 1.0) if exact.numel() else 1.0
    torch.testing.assert_close(ours.double(), exact.detach(), rtol=0, atol=tolerance * size * 10)


LOSSES = [("ce", False), ("ce", True), ("margin", False), ("dlr", False), ("kl", False), ("ce+te", False)]


@pytest.mark.parametrize(("loss", "targeted"), LOSSES)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_attack_is_its_steps(norm, loss, targeted):
    network = convolutions(torch.float64)
    given, rows, classes = network.given(), 37, network.map.channels
    clean = torch.rand(rows, 3, 9, 7, dtype=torch.float64)
    y = torch.randint(0, classes, (rows,))
    goal = {"loss": loss, "targeted": targeted, "label": y}
    if loss == "kl":
        goal["reference"] = torch.randn(rows, classes, dtype=torch.float64)
    if loss == "ce+te":
        goal |= {"soft": torch.randn(rows, classes, dtype=torch.float64).softmax(1), "soft_weight": 30.0}
    step, limits = getattr(ops, f"{norm}_step_"), {"step_size": 0.03, "eps": 0.05, "lo": 0.1, "hi": 0.8}
    expected = clean.clamp(0.1, 0.8)
    ours, reference = expected.to(memory_format=torch.channels_last, copy=True), expected.clone()
    # dlr is constant where the label ranks third: an l2 step would magnify the rounding of a gradient of 0.
    moved = torch.ones(rows, dtype=torch.bool)
    for _ in range(4):
        logits = network.exact(expected)
        grad, _ = ops.attack_grad(logits, y, **goal)
        moved &= grad.abs().amax(1) > 1e-9
        step(expected, network_gradient(expected, grad, **given)[1], clean, **limits)
    assert network_attack_(ours, clean, y, norm=norm, steps=4, **limits, **goal, **given) is ours
    assert moved.sum() > rows / 2
    torch.testing.assert_close(ours[moved], expected[moved], rtol=0, atol=1e-9)
    assert not torch.equal(ours, clean)
    base = loss.partition("+")[0]
    arguments = (base, goal.get("reference"), goal.get("soft"), goal.get("soft_weight", 0.0), targeted, y)
    _native.reference_of("network_attack_")(
        reference, clean, y, *given.values(), *arguments, norm, 4, *limits.values()
    )
    torch.testing.assert_close(reference[moved], expected[moved], rtol=0, atol=1e-9)


def test_no_image_depends_on_another_nor_on_threads():
    given = residual(torch.float32).given()
    x, y = torch.rand(50, 1, 6, 6), torch.randint(0, 4, (50,))
    how = {"steps": 3, "step_size": 0.02, "eps": 0.05, **given}
    whole = network_attack_(x.clone(), x, y, **how)
    pieces = [
        network_attack_(x[i : i + 7].clone(), x[i : i + 7], y[i : i + 7], **how) for i in range(0, 50, 7)
    ]
    assert torch.equal(whole, torch.cat(pieces))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(whole, network_attack_(x.clone(), x, y, **how))
    finally:
        torch.set_num_threads(threads)


def test_a_plan_reads_back():
    for make in NETWORKS:
        plan = make(torch.float32).given()["plan"]
        assert torch.equal(network_plan(layers_of(plan)), plan)


def test_the_columns_of_a_plan_have_the_same_names_in_the_kernel():
    given = mlp(torch.float32).given()
    assert given["plan"].shape[1] == len(COLUMNS)
    narrow = given["plan"][:, 1:]
    with pytest.raises(RuntimeError, match=r"plan must be \[layers, columns\]") as error:
        network_gradient(torch.rand(1, 2, 5, 3), None, **{**given, "plan": narrow})
    names = str(error.value).partition("with the columns: ")[2].partition("\n")[0]
    assert tuple(names.split()) == COLUMNS


def test_nan_comes_through():
    given = pooled(torch.float32).given()
    x = torch.rand(3, 2, 10, 11)
    x[1, 0, 4, 4] = torch.nan
    logits, _ = network_gradient(x, None, **given)
    assert logits.isnan().any(1).tolist() == [False, True, False]


def test_opcheck():
    network = convolutions(torch.float32)
    x, y = torch.rand(5, 3, 9, 7), torch.randint(0, 11, (5,))
    given = tuple(network.given().values())
    torch.library.opcheck(torch.ops.bat_fast.network_gradient, (x, torch.randn(5, 11), *given))
    climbed = ("ce", None, None, 0.0, False, None, "linf", 2, 0.1, 0.1, 0.0, 1.0)
    torch.library.opcheck(torch.ops.bat_fast.network_attack_, (x.clone(), x, y, *given, *climbed))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("source", 10**6), ("target", 2**40), ("target", -3), ("other", 10**6), ("weight", 10**6),
        ("bias", 10**6), ("window", Window(90, 90)), ("window", Window(3, 2, 0, 1)), ("out", Map(0, 4, 13)),
        ("out", Map(2**40, 2**40, 1)),
    ],
)  # fmt: skip
def test_a_plan_that_leaves_its_memory_is_refused(field, value):
    network = convolutions(torch.float32)
    network.layers[1] = network.layers[1]._replace(**{field: value})
    with pytest.raises(RuntimeError, match="plan: layer"):
        network_gradient(torch.rand(2, 3, 9, 7), None, **network.given())


def test_errors_name_the_argument():
    given = convolutions(torch.float32).given()
    x, y = torch.rand(2, 3, 9, 7), torch.tensor([0, 1])
    how = {"steps": 1, "step_size": 0.1, "eps": 0.1, **given}
    for message, call in {
        "another size": lambda: network_gradient(torch.rand(2, 3, 9, 8), None, **given),
        "x must be": lambda: network_gradient(torch.rand(2, 9), None, **given),
        "weights must be": lambda: network_gradient(x.double(), None, **given),
        "plan must be": lambda: network_gradient(x, None, **{**given, "plan": torch.zeros(2)}),
        "11 classes": lambda: network_gradient(x, None, **{**given, "classes": 12}),
        "grad must be": lambda: network_gradient(x, torch.rand(2, 3), **given),
        "clean must have": lambda: network_attack_(x, x[:1], y, **how),
        "norm must be": lambda: network_attack_(x, x, y, **how, norm="l1"),
        "loss must be": lambda: network_attack_(x, x, y, **how, loss="hinge"),
        "target holds class 11": lambda: network_attack_(x, x, torch.tensor([0, 11]), **how),
        "steps must be": lambda: network_attack_(x, x, y, **{**how, "steps": -1}),
    }.items():
        with pytest.raises((ValueError, TypeError, RuntimeError), match=message):
            call()


def test_module_of_torch_as_a_plan_by_hand():
    """The example of the docstring: a linear layer on flattened pixels."""
    layer = nn.Linear(12, 3)
    weights = torch.cat(
        [layer.weight.detach().view(3, 3, 2, 2).permute(0, 2, 3, 1).flatten(), layer.bias.detach()]
    )
    planned = PlanLayer("window", 0, -1, -1, 12, None, Map(1, 1, 12), Map(1, 1, 3), weight=0, bias=36)
    x = torch.rand(4, 3, 2, 2)
    logits, _ = network_gradient(x, None, plan=network_plan([planned]), weights=weights, classes=3)
    torch.testing.assert_close(logits, layer(x.flatten(1)).detach())
