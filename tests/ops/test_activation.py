"""smooth_relu and softplus against their equations in float64."""

from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import SOME_IMAGES, Right
from torch import inf, nan
from torch.nn import functional as F

from bat_fast import ops
from bat_fast.ops import activation

SHAPES = [(), (1,), (7,), (2, 3, 5, 7), (4, 3, 32, 32), (0, 3, 4, 4), (3, 40961)]
BETAS = [20.0, 1.0, -0.3, 1e-3]
# Relative to each value, however small: nothing cancels for small inputs.
TOLERANCE = {torch.float32: {"rtol": 4e-6, "atol": 1e-37}, torch.float64: {"rtol": 1e-13, "atol": 1e-300}}


def layouts(x):
    yield "contiguous", x
    yield "gaps", torch.stack([x, x], dim=-1)[..., 0]
    if x.dim() == 4:
        yield "channels_last", x.to(memory_format=torch.channels_last)
        yield "transposed", x.transpose(2, 3).contiguous().transpose(2, 3)


def textbook_smooth_relu(x, beta_raw):
    """The published line, for inputs where it does not cancel: x in float64."""
    b = beta_raw.square()
    positive = x.clamp(min=0)
    return positive - (b * positive).log1p() / b


def values_and_grads(f, grad, *inputs):
    inputs = [t.detach().requires_grad_() for t in inputs]
    out = f(*inputs)
    return out, *torch.autograd.grad(out, inputs, grad)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("beta", BETAS)
def test_smooth_relu_is_the_published_function(shape, beta, device, dtype):
    x, grad = (3 * torch.randn(shape, device=device)).to(dtype), torch.randn(shape, device=device).to(dtype)
    beta_raw = torch.tensor(beta, device=device, dtype=dtype)
    exact = values_and_grads(textbook_smooth_relu, grad.double(), x.double(), beta_raw.double())
    # The published line itself loses digits where b x is small.
    lost = 1e-15 / min(1.0, beta**2)
    rtol = TOLERANCE[dtype]["rtol"]
    for name, view in layouts(x):
        for _, g in layouts(grad):
            out, grad_x, grad_beta = values_and_grads(ops.smooth_relu, g, view, beta_raw)
            assert out.dtype == grad_x.dtype == dtype
            assert out.stride() == grad_x.stride() == torch.empty_like(view).stride(), name
            torch.testing.assert_close(out.double(), exact[0], rtol=rtol, atol=lost)
            torch.testing.assert_close(grad_x.double(), exact[1], rtol=rtol, atol=lost)
            sum_error = 100 * rtol + lost / abs(beta) * x.numel()
            torch.testing.assert_close(grad_beta.double(), exact[2], rtol=rtol, atol=sum_error)


def decimal_smooth_relu(x, beta):
    """The function and its two derivatives at one point, in 60 digits."""
    x, beta = Decimal(x), Decimal(beta)
    b = beta * beta
    log = (b * x + 1).ln()
    return x - log / b, b * x / (1 + b * x), 2 * beta * (log / b**2 - x / (b * (b * x + 1)))


@pytest.mark.parametrize("beta", BETAS)
def test_smooth_relu_is_exact_relative_to_every_value(beta, device, dtype):
    x = (10 ** torch.linspace(-12, 9, 301, dtype=torch.float64, device=device)).to(dtype)
    beta_raw = torch.tensor(beta, device=device, dtype=dtype)
    with localcontext(prec=60):
        rows = [[float(d) for d in decimal_smooth_relu(v, beta_raw.item())] for v in x.tolist()]
    exact = torch.tensor(rows, dtype=torch.float64, device=device).T
    out, grad_x, _ = values_and_grads(ops.smooth_relu, torch.ones_like(x), x, beta_raw)
    grad_beta = [values_and_grads(ops.smooth_relu, v.new_ones(()), v, beta_raw)[2] for v in x]
    torch.testing.assert_close(out.double(), exact[0], **TOLERANCE[dtype])
    torch.testing.assert_close(grad_x.double(), exact[1], **TOLERANCE[dtype])
    torch.testing.assert_close(torch.stack(grad_beta).double(), exact[2], **TOLERANCE[dtype])


def test_the_references_are_the_equations(dtype):
    x, grad = (3 * torch.randn(1000)).to(dtype), torch.randn(1000).to(dtype)
    beta_raw = torch.tensor(2.0, dtype=dtype)
    exact = values_and_grads(textbook_smooth_relu, grad.double(), x.double(), beta_raw.double())
    grads = activation._smooth_relu_backward_reference(grad, x, beta_raw, True)
    for ours, value in zip((activation._smooth_relu_reference(x, beta_raw), *grads), exact, strict=True):
        torch.testing.assert_close(ours.double(), value, rtol=2e-6, atol=2e-5)
    soft = values_and_grads(lambda x: F.softplus(x, 10.0, 1e9), grad.double(), x.double())
    ours = activation._softplus_reference(x, 10.0), activation._softplus_backward_reference(grad, x, 10.0)
    for mine, value in zip(ours, soft, strict=True):
        torch.testing.assert_close(mine.double(), value, rtol=1e-5, atol=1e-6)


def test_smooth_relu_at_its_limits(device, dtype):
    x = torch.tensor([1e4, -1e4, inf, -inf, nan, 1e38, 0.0, -0.0], device=device, dtype=dtype)
    beta_raw = torch.tensor(20.0, device=device, dtype=dtype)
    out, grad_x, _ = values_and_grads(ops.smooth_relu, torch.ones_like(x), x, beta_raw)
    expected = torch.tensor([1e4 - 0.0380045110, 0, inf, 0, nan, 1e38, 0, 0], device=device, dtype=dtype)
    torch.testing.assert_close(out, expected, equal_nan=True)
    slope = torch.tensor([1 - 2.5e-7, 0, 1, 0, nan, 1, 0, 0], device=device, dtype=dtype)
    torch.testing.assert_close(grad_x, slope, equal_nan=True)


@pytest.mark.parametrize("beta", [0.0, -0.0, 1e-30, 1e-160, 1e30, 1e160])
def test_any_beta_gives_finite_values(beta, device, dtype):
    x = torch.tensor([0.0, 1e-6, 1.0, 1e4, -1.0], device=device, dtype=dtype)
    beta_raw = torch.tensor(beta, device=device, dtype=dtype)
    out, grad_x, grad_beta = values_and_grads(ops.smooth_relu, torch.ones_like(x), x, beta_raw)
    assert all(t.isfinite().all() for t in (out, grad_x, grad_beta))
    limit = x.clamp(min=0) if beta > 1 else torch.zeros_like(x)
    torch.testing.assert_close(out, limit, rtol=1e-6, atol=1e-20)
    assert grad_beta.abs() < 1e-20


def test_the_gradient_of_beta_is_deterministic(device):
    x, grad = torch.randn(3, 100003, device=device), torch.randn(3, 100003, device=device)
    beta_raw = torch.tensor(3.0, device=device)
    threads, sums = torch.get_num_threads(), set()
    for n in (1, 2, 3, threads):
        torch.set_num_threads(n)
        sums.add(values_and_grads(ops.smooth_relu, grad, x, beta_raw)[2].item())
    assert len(sums) == 1


def test_a_frozen_beta_gets_no_gradient(device):
    x, beta_raw = torch.randn(5, device=device, requires_grad=True), torch.tensor(2.0, device=device)
    (grad,) = torch.autograd.grad(ops.smooth_relu(x, beta_raw).sum(), x)
    assert torch.equal(grad, values_and_grads(ops.smooth_relu, torch.ones_like(x), x, beta_raw)[1])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sharpness", [10.0, 0.5])
def test_softplus_is_its_equation(shape, sharpness, device, dtype):
    x, grad = torch.randn(shape, device=device).to(dtype), torch.randn(shape, device=device).to(dtype)
    exact = values_and_grads(lambda x: F.softplus(x, sharpness, 1e9), grad.double(), x.double())
    for name, view in layouts(x):
        ours = values_and_grads(lambda x: ops.softplus(x, sharpness=sharpness), grad, view)
        assert ours[0].stride() == ours[1].stride() == torch.empty_like(view).stride(), name
        for mine, value in zip(ours, exact, strict=True):
            # exp(a x) inherits the rounding of a x, up to 45 here.
            rtol = 1e-5 if dtype == torch.float32 else 1e-13
            torch.testing.assert_close(mine.double(), value, rtol=rtol, atol=1e-37)


def test_softplus_at_its_limits(device, dtype):
    x = torch.tensor([1e4, -1e4, inf, -inf, nan, 1e38, -1e38, 0.0], device=device, dtype=dtype)
    out, grad = values_and_grads(ops.softplus, torch.ones_like(x), x)
    expected = torch.tensor([1e4, 0, inf, 0, nan, 1e38, 0, 0.0693147180559945], device=device, dtype=dtype)
    torch.testing.assert_close(out, expected, equal_nan=True)
    slope = torch.tensor([1, 0, 1, 0, nan, 1, 0, 0.5], device=device, dtype=dtype)
    torch.testing.assert_close(grad, slope, equal_nan=True)


numbers = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(x=numbers, beta=st.floats(0.0625, 100, width=32))
def test_smooth_relu_stays_below_relu_and_rises(x, beta):
    x = torch.tensor(x).sort().values
    out = ops.smooth_relu(x, torch.tensor(beta))
    assert (out >= 0).all()
    assert (out <= x.clamp(min=0)).all()
    assert (out.diff() >= -1e-6 * out[1:]).all()


@settings(max_examples=200, deadline=None)
@given(x=numbers, sharpness=st.floats(0.01, 1000))
def test_softplus_is_relu_and_an_even_rest(x, sharpness):
    x = torch.tensor(x)
    rest = ops.softplus(x, sharpness=sharpness) - x.clamp(min=0)
    assert (rest >= 0).all()
    assert (rest <= 0.6932 / sharpness + 1e-6 * x.abs()).all()
    slopes = [torch.ops.bat_fast.softplus_backward(torch.ones_like(x), s * x, sharpness) for s in (1, -1)]
    torch.testing.assert_close(sum(slopes), torch.ones_like(x))


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_16_bit_inputs_compute_in_float32(half, device):
    x, grad = torch.randn(2, 1003, device=device).to(half), torch.randn(2, 1003, device=device).to(half)
    beta_raw = torch.tensor(2.0, device=device)
    ours = values_and_grads(ops.smooth_relu, grad, x, beta_raw)
    exact = values_and_grads(ops.smooth_relu, grad.float(), x.float(), beta_raw)
    for mine, value in zip(ours[:2], exact[:2], strict=True):
        torch.testing.assert_close(mine, value.to(half))
    torch.testing.assert_close(ours[2], exact[2], rtol=1e-5, atol=1e-4)


def test_gradients_are_numerically_right():
    x = torch.randn(40, dtype=torch.float64)
    x = (x + 0.1 * x.sign()).requires_grad_()  # finite differences would straddle the kink of the slope
    beta_raw = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ops.smooth_relu, (x, beta_raw))
    assert torch.autograd.gradcheck(lambda x: ops.softplus(x, sharpness=3.0), x)


@pytest.mark.parametrize("name", ["smooth_relu", "softplus"])
def test_a_second_derivative_is_an_error_and_not_zero(name, device):
    x = torch.randn(5, device=device, requires_grad=True)
    out = ops.softplus(x) if name == "softplus" else ops.smooth_relu(x, torch.tensor(2.0, device=device))
    (grad,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    for penalised in (grad.sum(), (grad + x).sum()):
        with pytest.raises(RuntimeError, match=f"{name} has no second derivative"):
            torch.autograd.grad(penalised, x, retain_graph=True)


@pytest.mark.slow
def test_operators_are_well_formed(device, dtype):
    x = torch.randn(2, 3, 4, 5, device=device).to(dtype).requires_grad_()
    beta_raw = torch.tensor(2.0, device=device, dtype=dtype, requires_grad=True)
    for view in (x, x.detach().to(memory_format=torch.channels_last).requires_grad_()):
        torch.library.opcheck(torch.ops.bat_fast.smooth_relu.default, (view, beta_raw))
        torch.library.opcheck(torch.ops.bat_fast.softplus.default, (view, 10.0))
    plain = x.detach(), x.detach(), beta_raw.detach()
    torch.library.opcheck(torch.ops.bat_fast.smooth_relu_backward.default, (*plain, True))
    torch.library.opcheck(torch.ops.bat_fast.smooth_relu_backward.default, (*plain, False))
    torch.library.opcheck(torch.ops.bat_fast.softplus_backward.default, (*plain[:2], 10.0))
    names = ("smooth_relu", "smooth_relu_backward", "softplus", "softplus_backward")
    assert all(ops.is_native(name, "cpu") for name in names)


@pytest.mark.slow
def test_under_compile(device):
    x, beta_raw = torch.randn(3, 4, device=device), torch.tensor(2.0, device=device)
    grad = torch.randn_like(x)
    for f in (ops.smooth_relu, lambda x, b: ops.softplus(x * b)):
        compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
        ours = values_and_grads(compiled, grad, x, beta_raw)
        torch.testing.assert_close(ours, values_and_grads(f, grad, x, beta_raw))


X, B = torch.randn(2, 3), torch.tensor(20.0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.smooth_relu(X.to(torch.complex64), B), TypeError, "x must be one of float32, float16"),
        (lambda: ops.smooth_relu(X, B[None]), ValueError, r"beta_raw must be a scalar tensor, got \[1\]"),
        (lambda: ops.smooth_relu(X, B.long()), TypeError, "beta_raw must be a floating-point scalar"),
        (lambda: ops.smooth_relu(X, B.to("meta")), ValueError, "beta_raw is on meta, x on cpu"),
        (lambda: ops.softplus(X.long()), TypeError, "x must be one of"),
        (lambda: ops.softplus(X, sharpness=0.0), ValueError, "sharpness must be a finite number in"),
        (lambda: ops.softplus(X, sharpness=float("nan")), ValueError, "sharpness must be a finite number"),
    ],
)
def test_what_is_wrong_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


RIGHT = {
    "smooth_relu": Right(
        {"x": SOME_IMAGES, "beta_raw": torch.tensor(2.0)},
        {"x": {"float16", "a dimension more", "a row less"}, "beta_raw": {"float16"}},
    ),
    "softplus": Right(
        {"x": SOME_IMAGES, "sharpness": 10.0}, {"x": {"float16", "a dimension more", "a row less", "meta"}}
    ),
}
DRAWN_BY = {
    "smooth_relu": test_smooth_relu_stays_below_relu_and_rises,
    "smooth_relu_backward": test_smooth_relu_is_the_published_function,
    "softplus": test_softplus_is_relu_and_an_even_rest,
    "softplus_backward": test_softplus_is_relu_and_an_even_rest,
}
