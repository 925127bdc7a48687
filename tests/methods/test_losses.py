"""The methods against textbook versions in float64."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bat_fast.attacks.loss import AttackLoss
from bat_fast.batch import Batch
from bat_fast.methods import create
from bat_fast.models import create as create_model


class Linear(nn.Module):
    """One hidden layer in float64, with features."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(12, 6), nn.Linear(6, 4)
        self.double()

    def forward(self, x, return_features=False):
        features = self.hidden(x.flatten(1)).tanh()
        logits = 4 * self.head(features)
        return (logits, features) if return_features else logits


def batch(seed: int = 0, count: int = 16) -> Batch:
    torch.manual_seed(seed)
    x = torch.rand(count, 3, 2, 2, dtype=torch.float64)
    y = torch.randint(0, 4, (count,))
    y[0] = 3  # the only one of its class: an anchor without positives
    y[1:][y[1:] == 3] = 0
    return Batch(x, y, torch.arange(count))


def textbook_bat(
    logits, features, y, *, alpha, beta, temperature, normalize="weights", denominator="all", weighted=False
):
    """Section 3 of the method's docstring, one sample and one pair at a time."""
    p = logits.detach().softmax(1)
    w = []
    for i in range(len(y)):
        other = torch.cat([p[i, : y[i]], p[i, y[i] + 1 :]]).max()
        w.append(torch.exp(-alpha * other) if p[i].argmax() != y[i] else torch.ones_like(other))
    ce = -logits.log_softmax(1)[range(len(y)), y]
    loss = sum(w[i] * ce[i] for i in range(len(y))) / (sum(w) if normalize == "weights" else len(y))
    h = features / features.norm(dim=1, keepdim=True)
    e = (h @ h.T / temperature).exp()
    total, count = 0.0, 0.0
    for i in range(len(y)):
        positives = [j for j in range(len(y)) if j != i and y[j] == y[i]]
        rest = [k for k in range(len(y)) if k != i and (denominator == "all" or y[k] != y[i])]
        below = sum(e[i, k] for k in rest)
        terms = [
            -(e[i, j] / (below + (e[i, j] if denominator == "negatives" else 0))).log() for j in positives
        ]
        if positives:
            weight = w[i] if weighted else 1.0
            total, count = total + weight * sum(terms) / len(terms), count + weight
    return loss + beta * total / count, torch.stack(w), total / count


def gradients(loss, model):
    return torch.autograd.grad(loss, list(model.parameters()))


def assert_same_gradients(loss, other, model):
    for a, b in zip(gradients(loss, model), gradients(other, model), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("normalize", "denominator", "weighted"),
    list(itertools.product(["weights", "batch"], ["all", "negatives"], [False, True])),
)
def test_bat_is_the_textbook_loss(normalize, denominator, weighted):
    data = batch()
    model = Linear()
    choices = {"normalize": normalize, "denominator": denominator, "weighted": weighted}
    numbers = {"alpha": 1.5, "beta": 0.3, "temperature": 0.2}
    terms = create("bat", **numbers, **choices)(model, data, data.x, 0)
    logits, features = model(data.x, return_features=True)
    loss, weights, discrimination = textbook_bat(logits, features, data.y, **numbers, **choices)
    assert 0 < (weights < 1).sum() < len(weights)  # the test sees samples of both kinds
    assert terms.total.item() == pytest.approx(loss.item(), rel=1e-6)
    assert_same_gradients(terms.total, loss, model)
    assert terms.metrics["weight_mean"].item() == pytest.approx(weights.mean().item(), rel=1e-6)
    assert terms.metrics["harmful_share"].item() == pytest.approx((weights < 1).double().mean().item())
    assert terms.metrics["discrimination"].item() == pytest.approx(discrimination.item(), rel=1e-6)


def test_warmup_raises_alpha_and_beta_linearly():
    data = batch()
    model = Linear()
    for epoch, ramp in ((0, 0.0), (1, 0.25), (3, 0.75), (4, 1.0), (9, 1.0)):
        warm = create("bat", alpha=2.0, beta=0.4, warmup=4)(model, data, data.x, epoch)
        plain = create("bat", alpha=2.0 * ramp, beta=0.4 * ramp)(model, data, data.x, 0)
        assert torch.equal(warm.total, plain.total), epoch
        assert "discrimination" in warm.metrics  # the same metrics in every epoch


def test_standard_and_pgd_at_are_the_cross_entropy():
    data = batch()
    model = Linear()
    adv = batch(1).x
    for name, image in (("standard", data.x), ("pgd_at", adv)):
        terms = create(name)(model, data, adv, 0)
        loss = F.cross_entropy(model(image), data.y)
        assert terms.total.item() == pytest.approx(loss.item(), rel=1e-12)
        assert_same_gradients(terms.total, loss, model)


@pytest.mark.parametrize(
    ("name", "accuracy", "more"),
    [
        ("standard", "clean_acc", set()),
        ("pgd_at", "robust_acc", set()),
        ("bat", "robust_acc", {"weight_mean", "harmful_share", "discrimination"}),
    ],
)
def test_terms(name, accuracy, more):
    data = batch()
    model = Linear()
    adv = batch(1).x
    image = data.x if name == "standard" else adv
    terms = create(name)(model, data, adv, 0)
    logits = model(image)
    assert set(terms.metrics) == {"loss", accuracy} | more
    assert all(value.dim() == 0 and not value.requires_grad for value in terms.metrics.values())
    assert torch.equal(terms.metrics["loss"], terms.total.detach())
    assert terms.metrics[accuracy].item() == pytest.approx(
        (logits.argmax(1) == data.y).double().mean().item()
    )
    assert terms.per_sample.shape == data.y.shape
    assert not terms.per_sample.requires_grad
    expected = F.cross_entropy(logits.detach(), data.y, reduction="none").to(terms.per_sample.dtype)
    assert torch.allclose(terms.per_sample, expected, rtol=1e-5)


def test_what_the_attack_climbs():
    data = batch()
    assert create("standard").attack_loss(Linear(), data, 0) is None
    for name in ("pgd_at", "bat"):
        assert create(name).attack_loss(Linear(), data, 0) == AttackLoss("ce")


def train(method, **options) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = create_model("small_cnn", num_classes=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(4):
        torch.manual_seed(step)
        data = Batch(torch.rand(16, 3, 8, 8), torch.randint(0, 4, (16,)), torch.arange(16))
        terms = create(method, **options)(model, data, (data.x + 0.03).clamp(0, 1), step)
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
    return list(model.state_dict().values())


def test_bat_without_its_terms_is_pgd_at_bit_for_bit():
    plain = train("pgd_at")
    for normalize in ("weights", "batch"):
        same = train("bat", alpha=0, beta=0, normalize=normalize)
        assert all(torch.equal(a, b) for a, b in zip(plain, same, strict=True))
    for change in ({"alpha": 1, "beta": 0}, {"alpha": 0, "beta": 0.2}):
        other = train("bat", **change)
        assert not all(torch.equal(a, b) for a, b in zip(plain, other, strict=True)), change


def test_without_beta_any_model_will_do():
    data = batch()
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).double()
    terms = create("bat", beta=0)(model, data, data.x, 0)
    assert set(terms.metrics) == {"loss", "robust_acc", "weight_mean", "harmful_share"}
    with pytest.raises(TypeError, match=r"bat\.beta = 0\.2 .*models\.wrap\(model, x\).*, or set beta=0"):
        create("bat")(model, data, data.x, 0)


def test_a_type_error_of_the_model_itself_is_not_hidden():
    class Broken(Linear):
        def forward(self, x, return_features=False):
            return super().forward(x + "pixels", return_features)

    data = batch()
    with pytest.raises(TypeError) as caught:
        create("bat")(Broken(), data, data.x, 0)
    assert "beta" not in str(caught.value)


def test_a_method_leaves_modes_gradients_and_batch_alone():
    for name in ("standard", "pgd_at", "bat"):
        model = create_model("small_cnn", num_classes=4)
        model.train()
        model.body[1].eval()
        data = Batch(torch.rand(8, 3, 8, 8), torch.randint(0, 4, (8,)), torch.arange(8))
        before = [tensor.clone() for tensor in data]
        create(name)(model, data, data.x, 0)
        assert all(parameter.grad is None for parameter in model.parameters())
        assert model.training
        assert not model.body[1].training
        assert all(torch.equal(a, b) for a, b in zip(before, data, strict=True))
