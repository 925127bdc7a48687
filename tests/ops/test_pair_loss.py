"""kl_loss and mart_loss against autograd through textbook formulas in float64."""

import pytest
import torch
from tables import SOME_LABELS, SOME_LOGITS, Draw, Drawn, Right, laid_out
from torch.nn import functional as F

from bat_fast import _native, ops

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


@pytest.mark.parametrize("classes", [10, 200, 1030])
@pytest.mark.parametrize("mart", [False, True])
def test_one_gradient_alone_is_that_of_both(mart, classes, device, dtype):
    clean, adv, y = pair(5, classes, device, dtype)
    target = y if mart else None
    loss, _, rows = torch.ops.bat_fast.pair_loss(clean, adv, target, 5.0)
    backward = torch.ops.bat_fast.pair_loss_backward
    both = backward(-2.0 * loss, clean, adv, target, rows, True, True)
    for side in (0, 1):
        alone = backward(-2.0 * loss, clean, adv, target, rows, side == 0, side == 1)
        assert torch.equal(alone[side], both[side])
        assert alone[1 - side].shape == (0, classes)


def test_an_empty_batch(device):
    clean, adv = (torch.empty(0, 3, device=device, requires_grad=True) for _ in range(2))
    for loss, _ in (ops.kl_loss(clean, adv), ops.mart_loss(clean, adv, clean.new_empty(0).long())):
        assert loss.isnan()
        assert [g.shape for g in torch.autograd.grad(loss, (clean, adv))] == [(0, 3), (0, 3)]


def test_a_wrong_label_makes_its_row_nan():
    # What a GPU, which reads no label on the host, runs where it has no kernel.
    clean, adv, y = pair(3, 4, "cpu", torch.float32)
    y[1] = 99
    value, gradients = (_native.reference_of(f"pair_loss{part}") for part in ("", "_backward"))
    _, per_sample, rows = value(clean, adv, y, 5.0)
    for t in (per_sample, rows, *gradients(torch.tensor(1.0), clean, adv, y, rows, True, True)):
        assert t.isnan().flatten(1).all(1).tolist() == [False, True, False] if t.dim() > 1 else t[1].isnan()
        assert not t[[0, 2]].isnan().any()


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
        clean, adv = clean.detach(), adv.detach()
        loss, _, rows = torch.ops.bat_fast.pair_loss(clean, adv, target, beta)
        arguments = (loss, clean, adv, target, rows, target is None, True)
        torch.library.opcheck(torch.ops.bat_fast.pair_loss_backward.default, arguments)


def test_under_compile(device):
    clean, adv, y = pair(6, 5, device, torch.float32)
    adv.requires_grad_()
    compiled = torch.compile(lambda z: ops.mart_loss(clean, z, y)[0], fullgraph=True, backend="aot_eager")
    for loss in (compiled(adv), ops.mart_loss(clean, adv, y)[0]):
        (grad,) = torch.autograd.grad(loss, adv)
        exact = adv.detach().double().requires_grad_()
        (expected,) = torch.autograd.grad(textbook_mart(clean.double(), exact, y, 5.0).mean(), exact)
        torch.testing.assert_close(grad.double(), expected, **TOLERANCE[torch.float32])


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
    return Drawn([d.normal(n, classes), d.normal(n, classes), target, beta], None, max(1.0, d.scale) / n)


def draw_pair_loss_backward(d: Draw) -> Drawn:
    (clean, adv, target, beta), _, unit = draw_pair_loss(d)
    rows = torch.ops.bat_fast.pair_loss(clean, adv, target, beta)[2]
    rows, wanted = laid_out(rows, d.one_of("contiguous", "gaps")), d.one_of((True, True), (True, False))
    arguments = [clean.new_tensor(-3.0), clean, adv, target, rows, *d.one_of(wanted, wanted[::-1])]
    return Drawn(arguments, unit=15 * unit)


DRAWN = {"pair_loss": draw_pair_loss, "pair_loss_backward": draw_pair_loss_backward}
