"""attack_grad against autograd through textbook formulas in float64."""

import pytest
import torch
from tables import SOME_LABELS, SOME_LOGITS, Draw, Drawn, Right
from torch.nn import functional as F

from bat_fast import ops

SIZES = [(1, 4), (3, 10), (5, 16), (7, 17), (2, 511), (2, 513), (128, 200), (33, 2049), (2, 22000), (0, 10)]
TOLERANCE = {torch.float32: {"rtol": 3e-6, "atol": 3e-6}, torch.float64: {"rtol": 1e-11, "atol": 1e-11}}


def logits(n, c, device, dtype, spread=5.0):
    return (torch.randn(n, c, device=device) * spread).to(dtype)


def labels(n, c, device):
    return torch.randint(0, c, (n,), device=device)


def others(z, y):
    return z.scatter(1, y[:, None], -torch.inf).amax(1)


def at(z, y):
    return z.gather(1, y[:, None]).squeeze(1)


def textbook(loss, z, y, *, reference=None, soft=None, soft_weight=0.0, targeted=False, label=None):
    """The value of each sample, differentiable in z."""
    sign = -1.0 if targeted else 1.0
    base, _, te = loss.partition("+")
    if base == "ce":
        value = sign * F.cross_entropy(z, y, reduction="none")
    elif base == "margin":
        value = sign * (others(z, y) - at(z, y))
    elif base == "kl":
        value = F.kl_div(z.log_softmax(1), reference.softmax(1), reduction="none").sum(1)
    else:
        top = z.sort(dim=1, descending=True).values
        if targeted:
            value = (at(z, y) - at(z, label)) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)
        else:
            value = (others(z, y) - at(z, y)) / (top[:, 0] - top[:, 2] + 1e-12)
    if te:
        value = value + soft_weight * (z.softmax(1) - soft).square().mean(1)
    return value


CASES = [("ce", False), ("ce", True), ("margin", False), ("margin", True), ("dlr", False), ("dlr", True),
         ("kl", False), ("ce+te", False), ("kl+te", False)]  # fmt: skip


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("loss", "targeted"), CASES)
def test_value_and_gradient(size, loss, targeted, device, dtype):
    n, c = size
    z, y = logits(n, c, device, dtype), labels(n, c, device)
    inputs = {}
    if "kl" in loss:
        inputs["reference"] = logits(n, c, device, dtype)
    if "te" in loss:
        inputs |= {"soft": logits(n, c, device, dtype).softmax(1), "soft_weight": 300.0}
    if targeted:
        inputs |= {"targeted": True, "label": labels(n, c, device)}
    grad, per_sample = ops.attack_grad(z, y, loss=loss, **inputs)
    exact = z.double().requires_grad_()
    wide = {k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in inputs.items()}
    value = textbook(loss, exact, y, **wide)
    (expected,) = torch.autograd.grad(value.sum(), exact)
    assert grad.dtype == dtype
    scale = 300.0 / c if "te" in loss else 1.0
    tolerance = {**TOLERANCE[dtype], "atol": TOLERANCE[dtype]["atol"] * max(scale, 1.0)}
    torch.testing.assert_close(grad.double(), expected, **tolerance)
    torch.testing.assert_close(per_sample.double(), value.detach(), **tolerance)


def test_ties_go_to_the_first_class(device, dtype):
    z = torch.tensor([[2.0, 1.0, 2.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0]], device=device, dtype=dtype)
    y = torch.tensor([0, 2], device=device)
    grad, value = ops.attack_grad(z, y, loss="margin")
    assert value.tolist() == [0.0, 0.0]
    assert grad.tolist() == [[-1, 0, 1, 0, 0], [1, 0, -1, 0, 0]]
    grad, value = ops.attack_grad(z[:1], y[:1], loss="dlr")  # 2 - 2 over 2 - 2 + 1e-12
    assert value.tolist() == [0.0]
    assert grad.isfinite().all()


def test_extreme_logits(device, dtype):
    inf = torch.inf
    z = torch.tensor([[1e4, -1e4, 0.0, 5.0], [-inf, 3.0, 1.0, -inf]], device=device, dtype=dtype)
    y = torch.tensor([1, 2], device=device)
    for loss in ("ce", "margin", "dlr"):
        grad, value = ops.attack_grad(z, y, loss=loss)
        assert grad.isfinite().all(), loss
        expected = textbook(loss, z.double(), y)
        torch.testing.assert_close(value.double(), expected, **TOLERANCE[dtype])
    reference = torch.tensor([[-inf, 0.0, 1.0, 2.0], [0.0, 1e4, 0.0, 0.0]], device=device, dtype=dtype)
    grad, value = ops.attack_grad(z.clamp(min=-30, max=30), y, loss="kl", reference=reference)
    assert grad.isfinite().all()
    assert value.isfinite().all()


@pytest.mark.parametrize("loss", ["ce", "margin", "dlr"])
def test_nan_logits_are_seen(loss, device, dtype):
    z = logits(3, 6, device, dtype)
    z[1, 4] = torch.nan
    grad, value = ops.attack_grad(z, labels(3, 6, device), loss=loss)
    assert grad.isnan().all(1).tolist() == [False, True, False]
    assert value.isnan().tolist()[::2] == [False, False]
    assert loss != "ce" or value[1].isnan()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equal_logits_have_no_kl_gradient(size, device, dtype):
    # Rounding errors would become whole steps of the linf attack.
    z = logits(*size, device, dtype)
    grad, value = ops.attack_grad(z, labels(*size, device), loss="kl", reference=z.clone())
    assert not grad.any()
    torch.testing.assert_close(value, torch.zeros_like(value), rtol=0, atol=3e-6)


def test_reference_may_have_another_dtype(device):
    z, y = logits(4, 5, device, torch.float32), labels(4, 5, device)
    other = logits(4, 5, device, torch.float32)
    a = ops.attack_grad(z, y, loss="kl", reference=other.bfloat16())[0]
    assert torch.equal(a, ops.attack_grad(z, y, loss="kl", reference=other.bfloat16().float())[0])


Z, Y = torch.randn(4, 5), torch.tensor([0, 1, 2, 1])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"loss": "hinge"}, ValueError, "loss must be one of ce, margin, dlr, kl"),
        ({"loss": "kl"}, ValueError, r"reference \[N, C\] is missing: kl needs it"),
        ({"loss": "ce+te"}, ValueError, r"soft \[N, C\] is missing"),
        ({"loss": "kl", "reference": Z[:2]}, ValueError, "reference must have the shape of logits"),
        ({"loss": "kl", "reference": Z.long()}, TypeError, "reference must be a floating-point tensor"),
        ({"loss": "kl", "reference": Z, "targeted": True}, ValueError, "targeted: kl has no targeted form"),
        ({"loss": "ce+te", "soft": Z, "soft_weight": -1.0}, ValueError, "soft_weight must be"),
        ({"loss": "dlr", "targeted": True}, ValueError, r"label \[N\], the true classes, is missing"),
        ({"loss": "dlr", "targeted": True, "label": Y + 5}, ValueError, "label holds class"),
    ],
)
def test_bad_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        ops.attack_grad(Z, Y, **options)


@pytest.mark.parametrize(
    ("loss", "targeted", "classes"), [("margin", False, 1), ("dlr", False, 2), ("dlr", True, 3)]
)
def test_too_few_classes_are_named(loss, targeted, classes):
    with pytest.raises(ValueError, match="logits must have at least"):
        ops.attack_grad(
            torch.randn(2, classes), torch.zeros(2, dtype=torch.long), loss=loss, targeted=targeted
        )


@pytest.mark.parametrize("loss", ["ce", "margin", "dlr", "kl"])
def test_operator_is_well_formed(loss, device, dtype):
    z, y = logits(5, 7, device, dtype), labels(5, 7, device)
    reference = z.flip(0).contiguous() if loss == "kl" else None
    soft = z.softmax(1) if loss == "kl" else None
    arguments = (z, y, loss, reference, soft, 2.0, False, None)
    torch.library.opcheck(torch.ops.bat_fast.attack_grad.default, arguments)


RIGHT = {
    "attack_grad": Right(
        {
            "logits": SOME_LOGITS, "target": SOME_LABELS, "loss": "kl+te", "reference": SOME_LOGITS,
            "soft": SOME_LOGITS, "soft_weight": 1.0,
        },
        {"logits": {"float16"}, "reference": {"float16"}, "soft": {"float16"}},
    )
}  # fmt: skip


def draw_attack_grad(d: Draw) -> Drawn:
    n, classes = d.rows(least=4)
    loss, targeted = d.one_of("ce", "margin", "dlr", "kl"), d.one_of(False, True)
    targeted = targeted and loss != "kl"
    scale = max(d.scale, 1e-2) if loss == "dlr" else None  # its denominator is a difference of logits
    soft = (
        d.normal(n, classes).softmax(1) if loss in ("ce", "kl") and not targeted and d.one_of(0, 1) else None
    )
    reference = d.normal(n, classes) if loss == "kl" else None
    label = d.integers(classes, n) if targeted and loss == "dlr" else None
    z = d.normal(n, classes, scale=scale)
    unit = 10 / scale if scale else 1.0 if loss == "kl" else 1 / classes
    return Drawn([z, d.integers(classes, n), loss, reference, soft, 3.0, targeted, label], unit=unit)


DRAWN = {"attack_grad": draw_attack_grad}
