"""Holistic weights against the dual minimised in long double, stored optima and a conic solver."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import SOME_LOGITS, Draw, Drawn, Right

from bat_fast import ops
from bat_fast.ops import holistic

PROBLEMS = json.loads((Path(__file__).parent / "holistic.json").read_text())["problems"]
FORMS = ["hd", "hr"]
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-10}
Real = np.longdouble


def minimum(f, low, high, width):
    """Golden-section minimum of a convex function: the best value seen until the bracket is so narrow."""
    ratio = (Real(5) ** Real(0.5) - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    fa, fb = f(a), f(b)
    best = min(f(low), f(high), fa, fb)
    while high - low > width:
        if fa < fb:
            high, b, fb = b, a, fa
            a = high - ratio * (high - low)
            fa = f(a)
        else:
            low, a, fa = a, b, fb
            b = low + ratio * (high - low)
            fb = f(b)
        best = min(best, fa, fb)
    return best


def kl_worst_case(gap, q, r):
    """min_t t - exp(-r) prod (t + d)^q for gaps d >= 0: the worst mean, less the largest loss."""
    if r == 0 or not gap.any():
        return -(q * gap).sum()
    keep = q > 0
    gap, q = gap[keep], q[keep]
    mean = (q * gap).sum()

    def dual(log_t):
        t = np.exp(log_t)
        return t - (t + mean) * np.exp(q @ np.log((t + gap) / (t + mean)) - r)

    # Smooth in log t, and so flat at the minimum that the value is right to the square of the width.
    return minimum(dual, np.log(gap.max()) - 200, np.log(gap.max()) + 40, width=1e-8)


def oracle(losses, alpha, r, form):
    """The optimum from the dual of the definition, by nested one-dimensional minimisation, in long double."""
    x = np.sort(np.asarray(losses.double().cpu(), dtype=Real))
    n, top = len(x), x[-1]
    gap, alpha = top - x, Real(alpha)
    if alpha >= 1:
        return top
    if form == "hr" and r > 0:

        def dual(cut):
            return kl_worst_case(np.minimum(gap, cut), np.full(n, Real(1) / n), r) + alpha * cut

        return top + minimum(dual, Real(0), gap.max(), width=1e-13 * gap.max())  # has kinks
    q = np.full(n, Real(1) / n)
    left = alpha
    for i in range(n):
        taken = min(left, q[i])
        q[i] -= taken
        left -= taken
    return top + kl_worst_case(np.append(gap, Real(0)), np.append(q, alpha), r)


def both(losses, **options):
    """Loss and weights, after checking what holds for every answer."""
    losses = losses.detach().requires_grad_()
    loss = ops.holistic_loss(losses, **options)
    weights = ops.holistic_weights(losses, **options)
    (grad,) = torch.autograd.grad(loss, losses)
    accumulator = torch.float64 if losses.dtype == torch.float64 else torch.float32
    assert loss.dtype == weights.dtype == accumulator
    assert grad.dtype == losses.dtype
    assert weights.shape == (len(losses) + 1,)
    assert not weights.requires_grad
    tight = 1e-5 if accumulator == torch.float32 else 1e-12
    assert (weights >= 0).all()
    assert abs(weights.double().sum() - 1) < tight
    x, w = losses.detach().double(), weights.double()
    top = x.max()
    value = top - (w[:-1] * (top - x)).sum()
    spread = (top - x.min()).item()
    assert abs(value - loss.double()) <= tight * spread + 2 * torch.finfo(accumulator).eps * x.abs().max()
    expected = w[:-1].clone()
    expected[x.argmax()] += w[-1]
    torch.testing.assert_close(
        grad.double(), expected, rtol=1e-2 if losses.element_size() == 2 else tight, atol=tight
    )
    return loss.double().item(), w


def samples(kind, n, device, dtype):
    x = torch.distributions.Exponential(1.0).sample((n,)).double()
    if kind == "ties":
        x = torch.randint(0, 4, (n,)).double()
    elif kind == "equal":
        x = torch.full((n,), 0.7).double()
    elif kind == "shifted":
        x = x + 1e3
    elif kind == "small":
        x = x * 1e-6
    elif kind == "heavy":
        x = (3 * torch.randn(n)).exp().double()
    elif kind == "outlier":
        x = 1 + 1e-3 * x
        x[n // 2] = 50.0
    return x.to(device, dtype)


@pytest.mark.parametrize(
    "problem", PROBLEMS, ids=lambda p: f"{p['kind']}-{p['alpha']}-{p['r']}-{len(p['losses'])}"
)
def test_stored_optima(problem, device, dtype):
    losses = torch.tensor(problem["losses"], dtype=dtype, device=device)
    loss, w = both(losses, alpha=problem["alpha"], r=problem["r"], form=problem["kind"])
    assert loss == pytest.approx(problem["value"], rel=TOLERANCE[dtype])
    if problem["weights"]:
        expected = torch.tensor(problem["weights"], dtype=torch.float64, device=device)
        torch.testing.assert_close(w, expected, rtol=0, atol=2e-6 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize("kind", ["plain", "ties", "equal", "shifted", "small", "heavy", "outlier"])
@pytest.mark.parametrize("n", [1, 2, 3, 17, 65])
@pytest.mark.parametrize("form", FORMS)
def test_the_optimum_is_exact(form, n, kind, device, dtype):
    losses = samples(kind, n, device, dtype)
    for alpha in (0, 1e-6, 0.3, 1, 1.5):
        for r in (0, 1e-3, 0.2, 5):
            loss, _ = both(losses, alpha=alpha, r=r, form=form)
            expected = float(oracle(losses, alpha, r, form))
            assert loss == pytest.approx(expected, rel=TOLERANCE[dtype], abs=1e-300), (alpha, r)


@pytest.mark.parametrize("n", [128, 1000, 4096])
@pytest.mark.parametrize("form", FORMS)
def test_large_batches_agree_with_the_reference(form, n, device, dtype):
    for kind in ("plain", "heavy", "ties"):
        losses = samples(kind, n, device, dtype)
        for alpha, r in ((0, 0.2), (0.05, 0.1), (0.3, 1e-3), (0.6, 5), (0.1, 1e-9)):
            loss, w = both(losses, alpha=alpha, r=r, form=form)
            exact, exact_w, _ = holistic._holistic_reference(losses.double().cpu(), alpha, r, form)
            assert loss == pytest.approx(exact.item(), rel=TOLERANCE[dtype])
            torch.testing.assert_close(w.cpu(), exact_w, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("form", FORMS)
def test_a_conic_solver_finds_the_same_optimum(form):
    cvxpy = pytest.importorskip("cvxpy", reason="cvxpy is not installed: pip install cvxpy")
    for n, alpha, r in ((8, 0.1, 0.1), (32, 0.05, 0.2), (32, 1e-3, 0.01), (20, 0.5, 0.5)):
        x = np.asarray(samples("plain", n, "cpu", torch.float64))
        if form == "hd":  # corruption first: q is a plan of at most alpha from the empirical distribution
            moved, w = cvxpy.Variable(n, nonneg=True), cvxpy.Variable(n + 1, nonneg=True)
            q = cvxpy.hstack([np.full(n, 1 / n) - moved, cvxpy.sum(moved)])
            limits = [moved <= 1 / n, cvxpy.sum(moved) <= alpha, cvxpy.sum(w) == 1]
            limits.append(cvxpy.sum(cvxpy.rel_entr(q, w)) <= r)
        else:  # the tilt first, then alpha of it moves
            q, moved = cvxpy.Variable(n, nonneg=True), cvxpy.Variable(n, nonneg=True)
            w = cvxpy.hstack([q - moved, cvxpy.sum(moved)])
            limits = [moved <= q, cvxpy.sum(moved) <= alpha, cvxpy.sum(q) == 1]
            limits.append(cvxpy.sum(cvxpy.rel_entr(np.full(n, 1 / n), q)) <= r)
        conic = cvxpy.Problem(cvxpy.Maximize(w @ np.append(x, x.max())), limits).solve(solver="CLARABEL")
        loss = ops.holistic_loss(torch.from_numpy(x), alpha=alpha, r=r, form=form).item()
        assert loss == pytest.approx(conic, rel=1e-6), (n, alpha, r)


finite = st.floats(-1.0, 1.0, width=32)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    values=st.one_of(
        st.lists(finite, min_size=1, max_size=40),
        st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=40),
    ),
    scale=st.sampled_from([1e-30, 1e-6, 1.0, 1e6]),
    alpha=st.one_of(st.sampled_from([0.0, 1e-6, 0.25, 0.5, 1 - 1e-12]), st.floats(0, 1)),
    r=st.one_of(st.sampled_from([0.0, 1e-12, 1e-3, 5.0, 1e4]), st.floats(0, 3)),
    form=st.sampled_from(FORMS),
)
def test_any_batch(values, scale, alpha, r, form):
    x = torch.tensor(values, dtype=torch.float64) * scale
    loss, w = both(x, alpha=alpha, r=r, form=form)
    spread = (x.max() - x.min()).item()
    slack = 1e-11 * spread + 1e-15 * x.abs().max().item()
    assert x.double().mean().item() - slack <= loss <= x.max().item() + slack
    exact, _, _ = holistic._holistic_reference(x, alpha, r, form)
    assert abs(exact.item() - loss) <= 1e-10 * spread + slack
    # Equal losses weigh the same, and a larger loss never weighs less.
    order = x.argsort()
    ascending = w[:-1][order]
    assert (ascending.diff() >= -1e-12).all()
    assert (ascending.diff()[x[order].diff() == 0].abs() <= 1e-12).all()
    # More of either kind of robustness never lowers the bound; a shift moves it along.
    assert ops.holistic_loss(x, alpha=alpha, r=2 * r, form=form).item() >= loss - slack
    assert ops.holistic_loss(x, alpha=min(2 * alpha, 1), r=r, form=form).item() >= loss - slack
    flipped, _ = both(x.flip(0), alpha=alpha, r=r, form=form)
    assert abs(flipped - loss) <= slack


@pytest.mark.parametrize("form", FORMS)
def test_edges(form, device):
    x = torch.tensor([3.0, 1.0, 2.0, 1.0], device=device)

    def weights(losses, alpha, r):
        return ops.holistic_weights(losses, alpha=alpha, r=r, form=form).tolist()

    assert weights(x, 0, 0) == [0.25, 0.25, 0.25, 0.25, 0.0]
    assert weights(x, 0.25, 0) == [0.25, 0.125, 0.25, 0.125, 0.25]  # equal losses give equal parts
    assert weights(x, 0.75, 0) == [0.25, 0.0, 0.0, 0.0, 0.75]
    assert weights(x, 1, 0.1) == weights(x, 7, 0.1) == [0, 0, 0, 0, 1]
    assert weights(torch.ones(4, device=device), 0.5, 0.1) == [0.125, 0.125, 0.125, 0.125, 0.5]
    assert weights(torch.zeros(1, device=device), 0.25, 0.1) == [0.75, 0.25]
    assert ops.holistic_loss(x, alpha=0.1, r=1e9, form=form).item() == pytest.approx(3.0, rel=1e-6)


def test_the_gradient_goes_to_the_first_of_the_largest(device, dtype):
    x = torch.tensor([1.0, 4.0, 4.0, 2.0], device=device, dtype=dtype, requires_grad=True)
    (grad,) = torch.autograd.grad(2 * ops.holistic_loss(x, alpha=0.5, r=0), x)
    assert grad.tolist() == [0.0, 1.5, 0.5, 0.0]


def test_the_gradient_is_that_of_the_optimum():
    x = samples("plain", 12, "cpu", torch.float64).requires_grad_()
    for form in FORMS:
        torch.autograd.gradcheck(lambda x, f=form: ops.holistic_loss(x, alpha=0.07, r=0.3, form=f), x)


def test_layouts(device, dtype):
    x = samples("plain", 33, device, dtype)
    strided = torch.stack([x, -x], 1)[:, 0]
    for view in (strided, x.flip(0).flip(0), x.expand(1, -1)[0]):
        assert torch.equal(*(ops.holistic_weights(v, alpha=0.1, r=0.1) for v in (view, x)))


@pytest.mark.cuda
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_16_bit_losses(half):
    x = samples("plain", 300, "cuda", half)
    loss, w = both(x, alpha=0.1, r=0.1, form="hr")
    exact, exact_w, _ = holistic._holistic_reference(x.double().cpu(), 0.1, 0.1, "hr")
    assert loss == pytest.approx(exact.item(), rel=1e-6)
    torch.testing.assert_close(w.cpu(), exact_w, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("form", FORMS)
def test_losses_that_are_not_finite(bad, form, device, dtype):
    x = torch.tensor([1.0, bad, 2.0], device=device, dtype=dtype)
    if device == "cpu":
        for op in (ops.holistic_loss, ops.holistic_weights):
            with pytest.raises(ValueError, match="losses must be finite, got 1 NaN or infinite of 3"):
                op(x, alpha=0.1, r=0.1, form=form)
    for outcome in torch.ops.bat_fast.holistic_loss(x, 0.1, 0.1, form):
        assert outcome.isnan().all()


@pytest.mark.parametrize(
    ("losses", "options", "error", "message"),
    [
        (torch.ones(0), {}, ValueError, "losses must hold at least one sample, got an empty batch"),
        (torch.ones(2, 2), {}, ValueError, r"losses must be \[N\], got \[2, 2\]"),
        (torch.ones(2).long(), {}, TypeError, "losses must be one of float32, float64 on cpu"),
        (torch.ones(2), {"alpha": -0.1}, ValueError, "alpha must be a finite number >= 0, got -0.1"),
        (torch.ones(2), {"r": math.nan}, ValueError, "r must be a finite number >= 0, got nan"),
        (torch.ones(2), {"r": math.inf}, ValueError, "r must be a finite number >= 0, got inf"),
        (torch.ones(2), {"form": "kl"}, ValueError, "form must be 'hd' or 'hr', got 'kl'"),
    ],
)
def test_bad_arguments_are_named(losses, options, error, message):
    for op in (ops.holistic_loss, ops.holistic_weights):
        with pytest.raises(error, match=message):
            op(losses, **{"alpha": 0.1, "r": 0.1, **options})


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_operator_is_well_formed(form, device, dtype):
    x = samples("plain", 9, device, dtype)
    for losses in (x, x.clone().requires_grad_()):
        torch.library.opcheck(torch.ops.bat_fast.holistic_loss.default, (losses, 0.1, 0.1, form))
    assert ops.is_native("holistic_loss", device)


def test_under_compile(device):
    x = samples("plain", 50, device, torch.float32).requires_grad_()
    compiled = torch.compile(
        lambda x: ops.holistic_loss(x, alpha=0.1, r=0.2), fullgraph=True, backend="aot_eager"
    )
    loss, expected = compiled(x), ops.holistic_loss(x, alpha=0.1, r=0.2)
    assert torch.equal(loss, expected)
    assert torch.equal(*(torch.autograd.grad(v, x)[0] for v in (loss, expected)))


LOSSES = Right(
    {"losses": SOME_LOGITS[:, 0], "alpha": 0.1, "r": 0.1, "form": "hd"},
    {"losses": {"a row less", "meta", "float16"}},
)
RIGHT = {"holistic_weights": LOSSES, "holistic_loss": LOSSES}


def draw_holistic_loss(d: Draw) -> Drawn:
    losses = d.normal(d.integer(1, 60)).abs()
    return Drawn([losses, d.one_of(0.0, 0.1, 0.7), d.one_of(0.0, 0.1, 1.0), d.one_of("hd", "hr")])


DRAWN = {"holistic_loss": draw_holistic_loss}
