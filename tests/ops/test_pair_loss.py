"""kl_loss and mart_loss against autograd through textbook formulas in float64."""

import pytest
import torch
from tables import SOME_LABELS, SOME_LOGITS, Draw, Drawn, Right
from torch.nn import functional as F

from bat_fast import ops

SIZES = [(1, 1), (1, 2), (3, 10), (5, 16), (2, 511), (2, 513), (128, 200), (9, 2049), (2, 22000)]
TOLERANCE = {torch.float32: {"rtol": 5e-5, "atol": 3e-5}, torch.float64: {"rtol": 1e-10, "atol": 1e-11}}


def pair(n, c, device, dtype, spread=3.0):
    clean = torch.randn(n, c, device=device) * spread
    adv = clean + torch.randn(n, c, device=device)
    return clean.to(dtype), adv.to(dtype), torch.randint(0, c, (n,), device=device)


def textbook_kl(clean, adv):
    return F.kl_div(adv.log_softmax(1), clean.softmax(1), reduction="none").sum(1)


def textbook_mart(clean, adv, y, beta):
    p, q = clean.softmax(1), adv.softmax(1)
    other = q.scatter(1, y[:, None], 0.0).amax(1)
    bce = F.cross_entropy(adv, y, reduction="none") - torch.log(1.0001 - other + 1e-12)
    kl = F.kl_div(torch.log(q + 1e-12), p, reduction="none").sum(1)
    return bce + beta * kl * (1.0000001 - p.gather(1, y[:, None]).squeeze(1))


def check(loss, expected, inputs, exact, dtype):
    value, per_sample = loss
    grads = torch.autograd.grad(2.0 * value, inputs)
    expected_grads = torch.autograd.grad(2.0 * expected.mean(), exact)
    torch.testing.assert_close(value.double(), expected.mean(), **TOLERANCE[dtype])
    torch.testing.assert_close(per_sample.double(), expected.detach(), **TOLERANCE[dtype])
    for ours, theirs in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(ours.double(), theirs, **TOLERANCE[dtype])
    assert not per_sample.requires_grad


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_kl(size, device, dtype):
    clean, adv, _ = pair(*size, device, dtype)
    inputs = [clean.requires_grad_(), adv.requires_grad_()]
    exact = [t.detach().double().requires_grad_() for t in inputs]
    check(ops.kl_loss(*inputs), textbook_kl(*exact), inputs, exact, dtype)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("beta", [0.0, 6.0])
def test_mart(size, beta, device, dtype):
    clean, adv, y = pair(*size, device, dtype)
    inputs = [clean.requires_grad_(), adv.requires_grad_()]
    exact = [t.detach().double().requires_grad_() for t in inputs]
    check(ops.mart_loss(*inputs, y, beta=beta), textbook_mart(*exact, y, beta), inputs, exact, dtype)


def test_gradient_flows_to_one_side_alone(device):
    clean, adv, _ = pair(4, 5, device, torch.float32)
    loss, _ = ops.kl_loss(clean, adv.requires_grad_())
    (grad,) = torch.autograd.grad(loss, adv)
    expected = (adv.softmax(1) - clean.softmax(1)) / 4
    torch.testing.assert_close(grad, expected.detach(), rtol=1e-4, atol=1e-6)


def test_extreme_logits(device, dtype):
    inf = torch.inf
    clean = torch.tensor([[1e4, -1e4, 0.0], [-inf, 0.0, 1.0], [0.0, 0.0, 0.0]], device=device, dtype=dtype)
    adv = torch.tensor([[1e4, -1e3, 9e3], [0.0, 0.0, 1.0], [0.0, 0.0, 1e4]], device=device, dtype=dtype)
    y = torch.tensor([0, 2, 1], device=device)
    for loss, expected in (
        (ops.kl_loss(clean, adv), textbook_kl(clean.double(), adv.double())),
        (ops.mart_loss(clean, adv, y, beta=5.0), textbook_mart(clean.double(), adv.double(), y, 5.0)),
    ):
        torch.testing.assert_close(loss[1].double(), expected.nan_to_num(nan=-1.0), rtol=1e-5, atol=1e-5)


def test_gradcheck(device):
    if device == "cuda":
        pytest.skip("gradcheck needs float64, which is CPU only")
    clean, adv, y = pair(3, 4, device, torch.float64)
    inputs = (clean.requires_grad_(), adv.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: ops.kl_loss(a, b)[0], inputs)
    assert torch.autograd.gradcheck(lambda a, b: ops.mart_loss(a, b, y)[0], inputs)


def test_operator_is_well_formed(device, dtype):
    clean, adv, y = pair(5, 7, device, dtype)
    for target, beta in ((None, 0.0), (y, 5.0)):
        arguments = (clean.requires_grad_(), adv.requires_grad_(), target, beta)
        torch.library.opcheck(torch.ops.bat_fast.pair_loss.default, arguments)


Z, Y = torch.randn(4, 5), torch.tensor([0, 1, 2, 1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.kl_loss(Z, Z[:2]), ValueError, "adv must have the shape of clean"),
        (lambda: ops.kl_loss(Z, Z.double()), TypeError, "adv must have the dtype of clean"),
        (lambda: ops.kl_loss(Z[0], Z[0]), ValueError, r"clean must be \[N, C\]"),
        (lambda: ops.kl_loss(Z.long(), Z.long()), TypeError, "clean must be one of"),
        (lambda: ops.mart_loss(Z, Z, Y + 5), ValueError, "target holds class"),
        (lambda: ops.mart_loss(Z, Z, Y, beta=-1.0), ValueError, "beta must be a finite number >= 0"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


FINE = {"clean": {"float16"}, "adv": {"float16"}}
RIGHT = {
    "kl_loss": Right({"clean": SOME_LOGITS, "adv": SOME_LOGITS}, FINE),
    "mart_loss": Right({"clean": SOME_LOGITS, "adv": SOME_LOGITS, "target": SOME_LABELS, "beta": 5.0}, FINE),
}


def draw_pair_loss(d: Draw) -> Drawn:
    n, classes = d.rows()
    target, beta = d.one_of((None, 0.0), (d.integers(classes, n), 5.0))
    return Drawn([d.normal(n, classes), d.normal(n, classes), target, beta], unit=max(1.0, d.scale) / n)


DRAWN = {"pair_loss": draw_pair_loss}
