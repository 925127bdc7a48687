"""affine and affine_grad_ against their equations in float64."""

import pytest
import torch
from tables import SOME_IMAGES, Draw, Drawn, Right
from torch import inf, nan

from bat_fast import ops
from bat_fast.ops.affine import (
    _affine_grad_reference,
    _affine_reference,
    _affine_relu_grad_reference,
    _affine_relu_reference,
)

AFFINE_RELU_GRAD_ = torch.ops.bat_fast.affine_relu_grad_

SHAPES = [
    (3, 5),
    (2, 3, 7),
    (2, 5, 6, 7),
    (4, 64, 32, 33),
    (2, 16, 1, 1),
    (3, 1, 4, 4),
    (0, 3, 4, 4),
    (2, 0, 3, 3),
]
SHAPES += [(2, 3, 4, 5, 6), (1, 2, 300, 301)]
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-14, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.fixture(params=list(TOLERANCE), ids=lambda d: str(d).removeprefix("torch."))
def dtype(request):
    """All that the kernels take, on every device."""
    return request.param


def layouts(x):
    yield "contiguous", x
    yield "gaps", torch.stack([x, x], dim=-1)[..., 0]
    yield "channels last", x.movedim(1, -1).contiguous().movedim(-1, 1)
    yield "batch inside", x.movedim(0, -1).contiguous().movedim(-1, 0)
    if x.dim() == 4:
        yield "transposed", x.transpose(2, 3).contiguous().transpose(2, 3)


def inputs(shape, dtype, device):
    x, other = (torch.randn(shape, device=device).to(dtype) for _ in range(2))
    scale, shift = (torch.randn(shape[1], device=device, dtype=torch.float64) for _ in range(2))
    if dtype != torch.float64:
        scale, shift = scale.float(), shift.float()
    return x, other, scale, shift


def columns(values, x):
    return values.double().view(-1, *[1] * (x.dim() - 2))


def close(ours, exact, size, dtype):
    """Within rounding of what was added up: the sum itself may cancel, and float16 ends at 6e-8."""
    end = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    return ((ours.double() - exact).abs() <= TOLERANCE[dtype] * size + end).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("relu", [False, True])
def test_affine_is_its_equation(shape, relu, device, dtype):
    x, _, scale, shift = inputs(shape, dtype, device)
    product = x.double() * columns(scale, x)
    exact = product + columns(shift, x)
    exact = exact.clamp(min=0) if relu else exact
    size = product.abs() + columns(shift, x).abs()
    for name, view in layouts(x):
        for y in (ops.affine(view, scale, shift, relu=relu), _affine_reference(view, scale, shift, relu)):
            assert y.dtype == dtype
            assert y.stride() == torch.empty_like(view).stride(), name
            assert close(y, exact, size, dtype), name


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("parts", range(8))
def test_the_gradient_is_its_equation(shape, parts, device, dtype):
    grad, other, scale, _ = inputs(shape, dtype, device)
    y = torch.randn(shape, device=device).to(dtype).relu()
    given = [t if parts >> i & 1 else None for i, t in enumerate((y, scale, other))]
    exact = grad.double()
    if given[0] is not None:
        exact = exact * (y > 0)
    if given[1] is not None:
        exact = exact * columns(scale, grad)
    size = exact.abs() + (0 if given[2] is None else other.double().abs())
    exact = exact if given[2] is None else exact + other.double()
    for name, view in layouts(grad):
        for _, output in layouts(y):
            mask = None if given[0] is None else output
            mine, plain = (view.clone(memory_format=torch.preserve_format) for _ in range(2))
            if not view.is_contiguous() and name == "gaps":
                mine = torch.stack([view, view], dim=-1)[..., 0]
            strides = mine.stride()
            assert ops.affine_grad_(mine, y=mask, scale=given[1], other=given[2]) is mine
            assert mine.stride() == strides
            _affine_grad_reference(plain, mask, given[1], given[2])
            assert close(mine, exact, size, dtype), name
            assert close(plain, exact, size, dtype), name


def test_a_mask_alone_takes_any_shape_and_changes_no_bit(device, dtype):
    for shape in ((), (7,), (40961,), (3, 5)):
        grad, y = torch.randn(shape, device=device).to(dtype), torch.randn(shape, device=device).to(dtype)
        expected = torch.where(y > 0, grad, 0)
        assert torch.equal(ops.affine_grad_(grad, y=y), expected)


def test_nan_and_infinities_pass_as_in_torch(device, dtype):
    x = torch.tensor([[nan], [inf], [-inf], [0.0], [-0.0]], device=device, dtype=dtype)
    one = torch.ones(1, device=device)
    y = ops.affine(x, one, 0 * one, relu=True)
    assert torch.equal(y.nan_to_num(7.0), x.relu().nan_to_num(7.0))
    expected = torch.ops.aten.threshold_backward(torch.ones_like(x), y, 0)
    assert torch.equal(ops.affine_grad_(torch.ones_like(x), y=y, scale=one), expected)


def test_it_is_batch_norm_and_relu(device, dtype):
    norm = torch.nn.BatchNorm2d(6, device=device).eval().double()
    for t in (*norm.parameters(), *norm.buffers()):
        if t.is_floating_point():
            t.data.copy_(torch.rand_like(t) + 0.1)
    x = torch.randn(4, 6, 5, 3, device=device).to(dtype).requires_grad_()
    scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias.detach() - norm.running_mean * scale
    y = ops.affine(x, scale, shift, relu=True)
    exact = norm(x.double()).relu()
    # The result may fall on either side of the kink where it rounds to 0.
    torch.testing.assert_close(y.double(), exact, rtol=TOLERANCE[dtype], atol=4 * TOLERANCE[dtype])
    g = torch.randn_like(x)
    ours, theirs = torch.autograd.grad(y, x, g)[0], torch.autograd.grad(exact, x, g.double())[0].double()
    near = exact.abs() < 4 * TOLERANCE[dtype]
    wrong = (ours.double() - theirs).abs() > 2 * TOLERANCE[dtype] * theirs.abs()
    assert not (wrong & ~near).any()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("more", [False, True])
def test_a_block_in_one_pass_is_sum_affine_and_bits(shape, more, device, dtype):
    """Bit for bit what the operators above give one after the other, and so is the gradient from the bits."""
    x, other, scale, shift = inputs(shape, dtype, device)
    grad, rest = (torch.randn(shape, device=device).to(dtype) for _ in range(2))
    other, rest = (other, rest) if more else (None, None)
    for name, view in layouts(x):
        expected_sum = view.clone(memory_format=torch.preserve_format) if other is None else view + other
        expected = ops.affine(expected_sum, scale, shift, relu=True)
        for run in (torch.ops.bat_fast.affine_relu_, _affine_relu_reference):
            moved = torch.stack([view, view], dim=-1)[..., 0] if name == "gaps" else view.clone()
            y, bits = run(moved, other, scale, shift)
            assert torch.equal(moved, expected_sum), name
            assert torch.equal(y, expected), name
            assert bits.shape == (-(-y.numel() // 8),)
            flags = (bits[:, None] >> torch.arange(8, device=device) & 1).flatten()
            assert torch.equal(flags[: y.numel()].bool(), y.as_strided((y.numel(),), (1,)) > 0), name
            assert not flags[y.numel() :].any()
            mine = torch.empty_like(y).copy_(grad)
            theirs = mine.clone()
            (_affine_relu_grad_reference if run is _affine_relu_reference else AFFINE_RELU_GRAD_)(
                mine, bits, scale, rest
            )
            ops.affine_grad_(theirs, y=y, scale=scale, other=rest)
            assert torch.equal(mine, theirs), name


def test_not_a_number_passes_the_gradient_on(device):
    x = torch.tensor([[1.0], [nan], [-1.0]], device=device)
    one, zero = torch.ones(1, device=device), torch.zeros(1, device=device)
    _, bits = torch.ops.bat_fast.affine_relu_(x, None, one, zero)
    grad = torch.ones_like(x)
    AFFINE_RELU_GRAD_(grad, bits, one, None)
    assert grad.flatten().tolist() == [1.0, 1.0, 0.0]


def test_gradients_are_numerically_right():
    x = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    scale, shift = torch.randn(2, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: ops.affine(x, scale, shift), x)
    far = (x.detach().sign() + x.detach()).requires_grad_()  # finite differences would straddle the kink
    assert torch.autograd.gradcheck(lambda x: ops.affine(x, scale, 0 * shift, relu=True), far)


def test_constants_get_no_gradient_silently(device):
    x, scale = torch.randn(2, 3, device=device), torch.ones(3, device=device, requires_grad=True)
    y = ops.affine(x, scale, scale.detach())
    with pytest.raises(RuntimeError, match=r"affine has a gradient for x alone: detach scale and shift"):
        y.sum().backward()


def test_a_second_derivative_is_an_error_and_not_zero(device):
    x, one = torch.randn(2, 3, device=device, requires_grad=True), torch.ones(3, device=device)
    (grad,) = torch.autograd.grad(ops.affine(x, one, one, relu=True).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="affine has no second derivative"):
        torch.autograd.grad((grad + x).sum(), x)


@pytest.mark.slow
def test_operators_are_well_formed(device, dtype):
    x, other, scale, shift = inputs((2, 3, 4, 5), dtype, device)
    last = x.to(memory_format=torch.channels_last)
    for view in (x, last, x.clone().requires_grad_()):
        torch.library.opcheck(torch.ops.bat_fast.affine.default, (view, scale, shift, True))
    for args in ((last, x, scale, other), (x, None, scale, None), (x, x.clone(), None, None)):
        torch.library.opcheck(torch.ops.bat_fast.affine_grad_.default, (args[0].clone(), *args[1:]))
    for view in (x, last):
        torch.library.opcheck(torch.ops.bat_fast.affine_relu_.default, (view.clone(), other, scale, shift))
    bits = torch.ops.bat_fast.affine_relu_(x.clone(), None, scale, shift)[1]
    torch.library.opcheck(AFFINE_RELU_GRAD_.default, (x.clone(), bits, scale, other))
    assert ops.is_native("affine", "cpu")
    assert ops.is_native("affine_grad_", "cpu")


def test_under_compile(device):
    x, _, scale, shift = inputs((3, 4, 5), torch.float32, device)

    def both(x):
        y = ops.affine(x, scale, shift, relu=True)
        return y, ops.affine_grad_(x.clone(), y=y, scale=scale, other=x)

    torch.testing.assert_close(torch.compile(both, fullgraph=True, backend="aot_eager")(x), both(x))


X, C = torch.randn(2, 3, 4), torch.rand(3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.affine(X.long(), C, C), TypeError, "x must be one of float32, float64, float16"),
        (lambda: ops.affine(C, C, C), ValueError, r"x must be \[N, C, ...\], got \[3\]"),
        (
            lambda: ops.affine(X, C[:2], C),
            ValueError,
            r"scale must be \[C\] = \[3\] for x \[2, 3, 4\], got \[2\]",
        ),
        (lambda: ops.affine(X, C, C.long()), TypeError, "shift must be floating point"),
        (lambda: ops.affine(X, C, C.to("meta")), ValueError, "shift is on meta, x on cpu"),
        (
            lambda: ops.affine_grad_(X.clone(), y=X[:1]),
            ValueError,
            r"y must have the shape of grad, \[2, 3, 4\]",
        ),
        (
            lambda: ops.affine_grad_(X.clone(), other=X.double()),
            TypeError,
            "other must be torch.float32 as grad is",
        ),
        (lambda: ops.affine_grad_(X.clone(), scale=X), ValueError, r"scale must be \[C\] = \[3\] for grad"),
        (lambda: ops.affine_grad_(C.clone(), scale=C), ValueError, r"grad must be \[N, C, ...\]"),
    ],
)
def test_what_is_wrong_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


RIGHT = {
    "affine": Right(
        {"x": SOME_IMAGES, "scale": torch.rand(2), "shift": torch.rand(2)},
        {"x": {"float16", "a row less"}, "scale": {"float16"}, "shift": {"float16"}},
    ),
    "affine_grad_": Right(
        {"grad": SOME_IMAGES, "y": SOME_IMAGES, "scale": torch.rand(2), "other": SOME_IMAGES},
        {"scale": {"float16"}},
    ),
}


def draw_affine(d: Draw) -> Drawn:
    shape = d.integer(1, 5), d.one_of(1, 3, 16, 40), *d.one_of((), (7,), (3, 5), (16, 9))
    scale, shift = (d.normal(shape[1], scale=1.0).contiguous() for _ in range(2))
    return Drawn([d.normal(*shape), scale, shift, d.one_of(False, True)], unit=1.0)


def draw_affine_grad_(d: Draw) -> Drawn:
    shape = d.integer(1, 5), d.one_of(1, 3, 16, 40), *d.one_of((), (7,), (3, 5), (16, 9))
    scale = d.one_of(None, d.normal(shape[1], scale=1.0).contiguous())
    y, other = d.one_of(None, d.normal(*shape)), d.one_of(None, d.normal(*shape))
    return Drawn([d.normal(*shape), y, scale, other], changed=0, unit=d.scale)


DRAWN_BY = {
    "affine_relu_": test_a_block_in_one_pass_is_sum_affine_and_bits,
    "affine_relu_grad_": test_a_block_in_one_pass_is_sum_affine_and_bits,
}
DRAWN = {"affine": draw_affine, "affine_grad_": draw_affine_grad_}
