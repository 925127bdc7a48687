"""discrimination_loss against its definition, written as loops."""

import math

import pytest
import torch
from tables import SOME_LABELS, SOME_LOGITS, Draw, Drawn, Right, laid_out

from bat_fast import _native, ops


def textbook(features, target, temperature, weights, denominator):
    h = features / features.norm(dim=1, keepdim=True)
    total, count = features.new_zeros(()), 0.0
    for i in range(len(h)):
        positives = [j for j in range(len(h)) if j != i and target[j] == target[i]]
        others = [k for k in range(len(h)) if target[k] != target[i]]
        if not positives:
            continue
        terms = []
        for j in positives:
            pool = [k for k in range(len(h)) if k != i] if denominator == "all" else [j, *others]
            scores = torch.stack([h[i] @ h[k] / temperature for k in pool])
            terms.append(scores.logsumexp(0) - h[i] @ h[j] / temperature)
        w = 1.0 if weights is None else weights[i]
        total = total + w * torch.stack(terms).mean()
        count = count + w
    return total / count if count else total


@pytest.mark.parametrize("denominator", ["all", "negatives"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [(1, 4, 2), (2, 3, 1), (9, 5, 3), (17, 8, 10)], ids=str)
def test_value_and_gradient(size, weighted, denominator, device, dtype):
    n, d, classes = size
    target = torch.randint(0, classes, (n,), device=device)
    features = torch.randn(n, d, device=device).to(dtype).requires_grad_()
    weights = torch.rand(n, device=device).to(dtype) if weighted else None
    loss = ops.discrimination_loss(
        features, target, temperature=0.5, weights=weights, denominator=denominator
    )
    (grad,) = torch.autograd.grad(2.0 * loss, features)
    exact = features.detach().double().requires_grad_()
    expected = textbook(exact, target, 0.5, None if weights is None else weights.double(), denominator)
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(loss.double(), expected, **close)
    expected_grad = torch.zeros_like(exact)
    if expected.requires_grad:
        (expected_grad,) = torch.autograd.grad(2.0 * expected, exact)
    torch.testing.assert_close(grad.double(), expected_grad, **close)


@pytest.mark.parametrize("denominator", ["all", "negatives"])
def test_edges(denominator, device):
    features = torch.randn(4, 3, device=device, requires_grad=True)
    alone = ops.discrimination_loss(features, torch.arange(4, device=device), denominator=denominator)
    assert alone == 0
    (grad,) = torch.autograd.grad(alone, features)
    assert (grad == 0).all()
    one_class = ops.discrimination_loss(
        features, torch.zeros(4, dtype=torch.long, device=device), denominator=denominator
    )
    assert one_class.isfinite()
    assert one_class == 0 or denominator == "all"
    zero = torch.zeros(4, 3, device=device, requires_grad=True)  # no direction: finite, not NaN
    loss = ops.discrimination_loss(zero, torch.tensor([0, 0, 1, 1], device=device), denominator=denominator)
    assert loss.isfinite()
    assert torch.autograd.grad(loss, zero)[0].isfinite().all()


def test_gradcheck(device):
    if device == "cuda":
        pytest.skip("gradcheck needs float64, which is CPU only")
    features = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 0, 1, 1, 1, 2])
    for denominator in ("all", "negatives"):
        assert torch.autograd.gradcheck(
            lambda f, d=denominator: ops.discrimination_loss(f, target, temperature=0.3, denominator=d),
            (features,),
        )


def test_operator_is_well_formed(device):
    features = torch.randn(6, 4, device=device, requires_grad=True)
    target = torch.tensor([0, 0, 1, 1, 1, 2], device=device)
    torch.library.opcheck(
        torch.ops.bat_fast.discrimination_loss.default, (features, target, 0.1, None, "all")
    )
    features = features.detach()
    loss, *kept = torch.ops.bat_fast.discrimination_loss(features, target, 0.1, None, "all")
    torch.library.opcheck(
        torch.ops.bat_fast.discrimination_loss_backward.default, (loss, features, *kept, 0.1)
    )


F_, T_ = torch.randn(4, 3), torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": F_[0]}, ValueError, r"features must be \[N, D\]"),
        ({"features": F_.long()}, TypeError, "features must be one of"),
        ({"target": T_[:2]}, ValueError, r"target must be \[N\] = \[4\]"),
        ({"target": T_.float()}, TypeError, "target must hold int64"),
        ({"weights": torch.ones(3)}, ValueError, r"weights must be \[N\] = \[4\]"),
        ({"temperature": 0.0}, ValueError, "temperature must be"),
        ({"denominator": "some"}, ValueError, "denominator must be 'all' or 'negatives'"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    arguments = {"features": F_, "target": T_} | change
    with pytest.raises(error, match=message):
        ops.discrimination_loss(arguments.pop("features"), arguments.pop("target"), **arguments)


@pytest.mark.parametrize("size", [(513, 7, 10), (640, 33, 3), (4097, 3, 4)], ids=str)
@pytest.mark.parametrize("denominator", ["all", "negatives"])
def test_large_batches_equal_the_reference(size, denominator, device):
    # One triangle that is copied from 512 rows, tiles of rows above 4096.
    n, d, classes = size
    target = torch.randint(0, classes, (n,), device=device)
    features = torch.randn(n, d, device=device, requires_grad=True)
    loss = ops.discrimination_loss(features, target, denominator=denominator)
    (grad,) = torch.autograd.grad(loss, features)
    value, gradient = (_native.reference_of(f"discrimination_loss{part}") for part in ("", "_backward"))
    exact = features.detach().double()
    expected, *kept = value(exact, target, 0.1, None, denominator)
    expected_grad = gradient(torch.ones_like(expected), exact, *kept, 0.1)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad.double(), expected_grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.005, 100.0])
@pytest.mark.parametrize("denominator", ["all", "negatives"])
def test_extreme_temperatures(temperature, denominator, device):
    target = torch.randint(0, 3, (20,), device=device)
    features = torch.randn(20, 6, device=device, requires_grad=True)
    loss = ops.discrimination_loss(features, target, temperature=temperature, denominator=denominator)
    (grad,) = torch.autograd.grad(loss, features)
    exact = features.detach().double().requires_grad_()
    expected = textbook(exact, target, temperature, None, denominator)
    (expected_grad,) = torch.autograd.grad(expected, exact)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grad.double(), expected_grad, rtol=1e-3, atol=1e-3)


def test_a_second_derivative_is_an_error(device):
    features = torch.randn(6, 4, device=device, requires_grad=True)
    loss = ops.discrimination_loss(features, torch.tensor([0, 0, 1, 1, 1, 2], device=device))
    (grad,) = torch.autograd.grad(loss, features, create_graph=True)
    with pytest.raises(RuntimeError, match="has no second derivative"):
        grad.sum().backward()


def test_a_far_positive_keeps_the_digits_of_its_gap():
    """Beyond 20 a softplus that turns linear loses 1e-10 of the loss."""
    x, y = torch.tensor([[2.0], [3.0], [-1.0], [-5.0]]).double(), torch.tensor([1, 3, 3, 0])
    expected = 10 + math.log(
        math.exp(10) + 2 * math.exp(-10)
    )  # each anchor: one other class here, one opposite
    reference = _native.reference_of("discrimination_loss")
    for loss in (
        ops.discrimination_loss(x, y, denominator="negatives"),
        reference(x, y, 0.1, None, "negatives")[0],
    ):
        assert abs(float(loss) - expected) < 1e-12


RIGHT = {
    "discrimination_loss": Right(
        {
            "features": SOME_LOGITS, "target": SOME_LABELS, "temperature": 0.1, "weights": torch.ones(3),
            "denominator": "all",
        },
        {
            "features": {"float16"},
            "target": {"negative", "too large"},
            "weights": {"bool", "int64", "float16"},
        },
    )
}  # fmt: skip


def draw_discrimination_loss(d: Draw) -> Drawn:
    n, width = d.integer(1, 40), d.one_of(1, 3, 16, 67)
    weights = d.one_of(None, d.uniform(n))
    features = d.normal(n, width, scale=max(d.scale, 1e-6))  # the direction of a zero is nowhere
    temperature, denominator = d.one_of(0.1, 1.0), d.one_of("all", "negatives")
    unit = 1 / (temperature * features.norm(dim=1).min().item())
    return Drawn([features, d.integers(5, n), temperature, weights, denominator], unit=unit)


def draw_discrimination_loss_backward(d: Draw) -> Drawn:
    n, width = d.integer(1, 40), d.one_of(1, 3, 16, 67)
    features = d.normal(n, width, scale=max(d.scale, 1e-6))
    norm = laid_out(features.norm(dim=1), d.one_of("contiguous", "gaps"))
    unit_grad, temperature = d.normal(n, width, scale=1.0), d.one_of(0.1, 1.0)
    unit = 3 / (temperature * norm.min().item())  # what is along a feature cancels
    return Drawn([features.new_tensor(-3.0), features, norm, unit_grad, temperature], unit=unit)


DRAWN = {
    "discrimination_loss": draw_discrimination_loss,
    "discrimination_loss_backward": draw_discrimination_loss_backward,
}
