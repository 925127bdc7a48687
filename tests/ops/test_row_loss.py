"""bat_loss and soft_target_loss (and cross-entropy of attack_grad) against textbook formulas in float64."""

import pytest
import torch
from tables import SOME_LABELS, SOME_LOGITS, Draw, Drawn, Right, laid_out
from torch.nn import functional as F

from bat_fast import ops

SIZES = [
    (1, 1), (1, 2), (3, 10), (5, 16), (7, 17), (2, 511), (2, 512), (2100, 513), (128, 200), (5, 1000),
    (33, 2049), (2, 22000), (0, 10),
]  # fmt: skip
TOLERANCE = {torch.float32: {"rtol": 2e-6, "atol": 2e-6}, torch.float64: {"rtol": 1e-12, "atol": 1e-12}}


def batch(n, c, device, dtype, spread=5.0):
    return (torch.randn(n, c, device=device) * spread).to(dtype), torch.randint(0, c, (n,), device=device)


def textbook_bat(z, y, alpha, normalize):
    p = z.softmax(1)
    q = p.scatter(1, y[:, None], 0.0).amax(1)
    w = torch.where(p.argmax(1) != y, torch.exp(-alpha * q), 1.0).detach()
    ce = F.cross_entropy(z, y, reduction="none")
    return (w * ce).sum() / (w.sum() if normalize == "weights" else len(w)), w


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("targeted", [False, True])
def test_attack_grad_is_the_gradient_of_cross_entropy(size, targeted, device, dtype):
    z, y = batch(*size, device, dtype)
    grad, per_sample = ops.attack_grad(z, y, targeted=targeted)
    exact = z.double().requires_grad_()
    sign = -1.0 if targeted else 1.0
    losses = sign * F.cross_entropy(exact, y, reduction="none")
    (expected,) = torch.autograd.grad(losses.sum(), exact)
    assert grad.dtype == dtype
    torch.testing.assert_close(grad.double(), expected, **TOLERANCE[dtype])
    torch.testing.assert_close(per_sample.double(), losses.detach(), **TOLERANCE[dtype])


@pytest.mark.parametrize("size", [s for s in SIZES if s[0]], ids=str)
@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("normalize", ["weights", "batch"])
def test_bat_loss_is_the_textbook_loss_with_its_gradient(size, alpha, normalize, device, dtype):
    z, y = batch(*size, device, dtype, spread=2.0)
    z.requires_grad_()
    loss, weights = ops.bat_loss(z, y, alpha=alpha, normalize=normalize)
    (grad,) = torch.autograd.grad(3.0 * loss, z)
    exact = z.detach().double().requires_grad_()
    expected, expected_weights = textbook_bat(exact, y, alpha, normalize)
    (expected_grad,) = torch.autograd.grad(3.0 * expected, exact)
    torch.testing.assert_close(loss.double(), expected, **TOLERANCE[dtype])
    torch.testing.assert_close(weights.double(), expected_weights, **TOLERANCE[dtype])
    torch.testing.assert_close(grad.double(), expected_grad, **TOLERANCE[dtype])
    assert not weights.requires_grad


def test_rows_with_extreme_logits(device, dtype):
    inf = torch.inf
    z = torch.tensor(
        [[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [-inf, 0.0, 1.0], [0.0, -inf, -inf], [3.0, 3.0, 3.0]],
        device=device, dtype=dtype,
    )  # fmt: skip
    y = torch.tensor([1, 2, 1, 0, 1], device=device)
    grad, per_sample = ops.attack_grad(z, y)
    exact = z.double()
    onehot = F.one_hot(y, 3)
    torch.testing.assert_close(grad.double(), exact.softmax(1) - onehot, **TOLERANCE[dtype])
    torch.testing.assert_close(
        per_sample.double(), F.cross_entropy(exact, y, reduction="none"), **TOLERANCE[dtype]
    )
    _, weights = ops.bat_loss(z, y, alpha=1.0)
    # Row 1 and row 4 are ties that argmax gives to an earlier class: predicted wrongly.
    expected = torch.tensor(
        [1.0, 0.5, exact[2].softmax(0)[2], 0.0, 1 / 3], dtype=torch.float64, device=device
    )
    torch.testing.assert_close(weights.double(), (-expected).exp(), **TOLERANCE[dtype])


def test_nan_logits_are_seen(device):
    z = torch.tensor([[0.0, torch.nan, 1.0], [0.0, 1.0, 2.0]], device=device)
    y = torch.tensor([0, 0], device=device)
    grad, per_sample = ops.attack_grad(z, y)
    assert grad[0].isnan().all()
    assert per_sample.isnan().tolist() == [True, False]
    assert ops.bat_loss(z, y, alpha=1.0)[0].isnan()


def test_layouts_of_logits(device, dtype):
    z, y = batch(6, 8, device, dtype)
    for view in (z.T.contiguous().T, torch.stack([z, z], -1)[..., 1]):
        for ours, plain in zip(ops.attack_grad(view, y), ops.attack_grad(z, y), strict=True):
            assert torch.equal(ours, plain)
        assert torch.equal(ops.bat_loss(view, y, alpha=1.0)[0], ops.bat_loss(z, y, alpha=1.0)[0])


def test_bat_loss_of_an_empty_batch_is_nan_like_torch(device):
    loss, weights = ops.bat_loss(
        torch.empty(0, 3, device=device), torch.empty(0, dtype=torch.long, device=device), alpha=1.0
    )
    assert loss.isnan()
    assert weights.shape == (0,)


Z, Y = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"target": torch.tensor([0, 1, 2, 3])}, ValueError, r"target holds class 3, outside \[0, 3\)"),
        ({"target": torch.tensor([0, 1, -1, 1])}, ValueError, r"target holds class -1, outside \[0, 3\)"),
        ({"target": Y[:2]}, ValueError, r"target must be \[N\] = \[4\], got \[2\]"),
        ({"target": Y.int()}, TypeError, "target must hold int64 class numbers"),
        ({"target": torch.zeros(4, dtype=torch.long, device="meta")}, ValueError, "target is on meta"),
        ({"logits": Z[0]}, ValueError, r"logits must be \[N, C\]"),
        ({"logits": Z.long()}, TypeError, "logits must be one of float32, float64 on cpu"),
    ],
)
def test_bad_rows_are_named(change, error, message):
    arguments = {"logits": Z, "target": Y} | change
    for op, options in ((ops.attack_grad, {}), (ops.bat_loss, {"alpha": 1.0})):
        with pytest.raises(error, match=message):
            op(arguments["logits"], arguments["target"], **options)


@pytest.mark.parametrize(
    ("op", "options", "message"),
    [
        (ops.bat_loss, {"alpha": -1.0}, "alpha must be a finite number >= 0, got -1"),
        (ops.bat_loss, {"alpha": float("nan")}, "alpha must be a finite number >= 0, got nan"),
        (
            ops.bat_loss,
            {"alpha": 1.0, "normalize": "sum"},
            "normalize must be 'weights' or 'batch', got 'sum'",
        ),
        (ops.attack_grad, {"loss": "hinge"}, "loss must be one of ce, margin"),
    ],
)
def test_bad_options_are_named(op, options, message):
    with pytest.raises(ValueError, match=message):
        op(Z, Y, **options)


def test_operators_are_well_formed(device, dtype):
    z, y = batch(5, 7, device, dtype)
    torch.library.opcheck(torch.ops.bat_fast.attack_grad.default, (z, y, "ce", None, None, 0.0, False, None))
    torch.library.opcheck(torch.ops.bat_fast.bat_loss.default, (z.requires_grad_(), y, 1.0, "weights"))


def test_bat_loss_under_compile(device):
    z, y = batch(6, 5, device, torch.float32)
    z.requires_grad_()
    compiled = torch.compile(lambda z: ops.bat_loss(z, y, alpha=1.0)[0], fullgraph=True, backend="aot_eager")
    for loss in (compiled(z), ops.bat_loss(z, y, alpha=1.0)[0]):
        (grad,) = torch.autograd.grad(loss, z)
        exact = z.detach().double().requires_grad_()
        (expected,) = torch.autograd.grad(textbook_bat(exact, y, 1.0, "weights")[0], exact)
        torch.testing.assert_close(grad.double(), expected, **TOLERANCE[torch.float32])


@pytest.mark.parametrize("size", [s for s in SIZES if s[0]], ids=str)
def test_soft_target_loss(size, device, dtype):
    z, _ = batch(*size, device, dtype)
    soft = torch.rand(size, device=device).to(dtype)
    loss, per_sample = ops.soft_target_loss(z.requires_grad_(), soft)
    (grad,) = torch.autograd.grad(3.0 * loss, z)
    exact = z.detach().double().requires_grad_()
    expected = (exact.softmax(1) - soft.double()).square().mean(1)
    (expected_grad,) = torch.autograd.grad(3.0 * expected.mean(), exact)
    torch.testing.assert_close(loss.double(), expected.mean(), **TOLERANCE[dtype])
    torch.testing.assert_close(per_sample.double(), expected.detach(), **TOLERANCE[dtype])
    torch.testing.assert_close(grad.double(), expected_grad, **TOLERANCE[dtype])


def test_soft_target_loss_is_well_formed(device, dtype):
    z, _ = batch(4, 6, device, dtype)
    torch.library.opcheck(
        torch.ops.bat_fast.soft_target_loss.default, (z.requires_grad_(), z.detach().softmax(1))
    )
    with pytest.raises(ValueError, match="soft must have the shape of logits"):
        ops.soft_target_loss(z, z[:2])


@pytest.mark.parametrize("name", ["bat_loss", "soft_target_loss", "kl_loss", "mart_loss", "discrimination"])
def test_gradients_add_up_over_backward_passes(name, device, dtype):
    # A loss may hand out the gradient that it keeps: what becomes of it must not change the next one.
    z, y = batch(6, 5, device, dtype)
    z.requires_grad_()
    other = torch.randn(6, 5, device=device, dtype=dtype)
    loss = {
        "bat_loss": lambda: ops.bat_loss(z, y, alpha=1.0)[0],
        "soft_target_loss": lambda: ops.soft_target_loss(z, other.softmax(1))[0],
        "kl_loss": lambda: ops.kl_loss(z, other)[0],
        "mart_loss": lambda: ops.mart_loss(z, other, y)[0],
        "discrimination": lambda: ops.discrimination_loss(z, y % 2),
    }[name]()
    (once,) = torch.autograd.grad(2.5 * loss, z, retain_graph=True)
    loss.backward(retain_graph=True)
    z.grad.mul_(4.0)
    loss.backward()
    torch.testing.assert_close(z.grad, 2.0 * once)


RIGHT = {
    "bat_loss": Right(
        {"logits": SOME_LOGITS, "target": SOME_LABELS, "alpha": 1.0, "normalize": "batch"},
        {"logits": {"float16"}},
    ),
    "soft_target_loss": Right(
        {"logits": SOME_LOGITS, "soft": SOME_LOGITS}, {"logits": {"float16"}, "soft": {"float16"}}
    ),
}


def draw_bat_loss(d: Draw) -> Drawn:
    n, classes = d.rows()
    normalize = d.one_of("weights", "batch")
    return Drawn([d.normal(n, classes), d.integers(classes, n), d.one_of(0.0, 1.0, 5.0), normalize])


def draw_bat_loss_backward(d: Draw) -> Drawn:
    n, classes = d.rows()
    z = d.normal(n, classes)
    top = z.amax(1)
    norm = torch.stack([top, (z - top[:, None]).exp().sum(1).log()], dim=1)
    norm = laid_out(norm, d.one_of("contiguous", "gaps"))
    grad_loss, total = z.new_tensor(-3.0), z.new_tensor(1.5)
    return Drawn([grad_loss, z, d.integers(classes, n), d.normal(n, scale=1.0), norm, total])


def draw_soft_target_loss(d: Draw) -> Drawn:
    n, classes = d.rows()
    return Drawn([d.normal(n, classes), d.normal(n, classes).softmax(1)], unit=1 / (n * classes))


DRAWN = {
    "bat_loss": draw_bat_loss,
    "bat_loss_backward": draw_bat_loss_backward,
    "soft_target_loss": draw_soft_target_loss,
}
