"""Every method through the training step, against about ten lines of textbook in float64: the images, the
loss and the weights after one full update (momentum and weight decay included)."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bat_fast import PGD
from bat_fast.batch import Batch
from bat_fast.config import AttackConfig, OptimConfig
from bat_fast.methods import create
from bat_fast.train.meter import EpochMeter
from bat_fast.train.step import TrainStep

EPS, STEP, STEPS, LR, DECAY = 0.1, 0.03, 3, 0.1, 5e-4
SAMPLES, CLASSES, EPOCH = 12, 4, 2


class Net(nn.Module):
    """One hidden layer in float64, with features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.hidden, self.head = nn.Linear(12, 6), nn.Linear(6, CLASSES)
        self.double()

    def forward(self, x, return_features=False):
        features = self.hidden(x.flatten(1)).tanh()
        logits = 4 * self.head(features)
        return (logits, features) if return_features else logits


def data() -> Batch:
    torch.manual_seed(5)
    x = torch.rand(SAMPLES, 3, 2, 2, dtype=torch.float64)
    return Batch(x, torch.randint(0, CLASSES, (SAMPLES,)), torch.randperm(SAMPLES) + 3)


def ours(name, options, norm="linf", **settings):
    """Two epochs without weights moving (they fill a memory), then one update: (loss, weights, method)."""
    model, batch, method = Net(), data(), create(name, **options)
    if hasattr(method, "prepare"):
        method.prepare(SAMPLES + 3, CLASSES, "cpu")
    plain = {"eps": EPS, "step_size": STEP, "steps": STEPS, "norm": norm}
    ask = getattr(method, "attack_options", lambda _: {})
    attack = PGD(model, **(plain | ask(plain)), seed=7)
    sgd = torch.optim.SGD(model.parameters(), LR, 0.9, weight_decay=DECAY)
    step = TrainStep(model, method, attack, sgd, AttackConfig(), OptimConfig(**settings))
    for epoch in range(EPOCH):
        with torch.no_grad():
            method.attack_loss(model, batch, epoch)
    terms = step(batch, EPOCH, EpochMeter("cpu"))
    return terms.total.item(), [p.detach() for p in model.parameters()]


def climb(model, batch, objective, *, eps=EPS, step=STEP, steps=STEPS, scale=1.0, project=True):
    """PGD as in a textbook, from the same random start."""
    x = batch.x
    adv = PGD(model, eps=scale * eps, seed=7).start(x, batch.index, EPOCH)
    for _ in range(steps):
        adv = adv.detach().requires_grad_()
        (grad,) = torch.autograd.grad(objective(model(adv)), adv)
        adv = adv + step * grad.sign()
        if project:
            adv = torch.min(torch.max(adv, x - eps), x + eps)
        adv = adv.clamp(0, 1)
    return adv.detach()


def descend(model, loss, velocity=None):
    """One step of SGD from rest; returns the velocity."""
    grads = torch.autograd.grad(loss, list(model.parameters()))
    velocity = velocity or [0.0] * len(grads)
    velocity = [0.9 * v + g + DECAY * p for v, g, p in zip(velocity, grads, model.parameters(), strict=True)]
    with torch.no_grad():
        for p, v in zip(model.parameters(), velocity, strict=True):
            p -= LR * v
    return velocity


def kl(clean, adv):
    return (clean.softmax(1) * (clean.log_softmax(1) - adv.log_softmax(1))).sum(1)


def ce_attack(model, batch, **options):
    return climb(model, batch, lambda z: F.cross_entropy(z, batch.y), **options)


def kl_attack(model, batch):
    clean = model(batch.x).detach()
    return climb(model, batch, lambda z: kl(clean, z).sum())


def standard(model, batch):
    return F.cross_entropy(model(batch.x), batch.y)


def pgd_at(model, batch):
    return F.cross_entropy(model(ce_attack(model, batch)), batch.y)


def fgsm_rs(model, batch):
    return F.cross_entropy(model(ce_attack(model, batch, step=1.25 * EPS, steps=1)), batch.y)


def n_fgsm(model, batch):
    adv = ce_attack(model, batch, step=EPS, steps=1, scale=2.0, project=False)
    assert (adv - batch.x).abs().max() > 1.5 * EPS
    return F.cross_entropy(model(adv), batch.y)


def trades(model, batch):
    adv = kl_attack(model, batch)
    clean = model(batch.x)
    return F.cross_entropy(clean, batch.y) + 6 * kl(clean, model(adv)).mean()


def mart(model, batch):
    adv = ce_attack(model, batch)
    p, q = model(batch.x).softmax(1), model(adv).softmax(1)
    rows = range(SAMPLES)
    wrong = q.clone()
    wrong[rows, batch.y] = 0
    bce = -q[rows, batch.y].log() - (1.0001 - wrong.amax(1) + 1e-12).log()
    divergence = (p * (p.log() - (q + 1e-12).log())).sum(1)
    return (bce + 5 * divergence * (1.0000001 - p[rows, batch.y])).mean()


def te_target(model, batch):
    """The same prediction every epoch: the memory is (1 - 0.9^k) of it, and its direction the prediction."""
    return model(batch.x).softmax(1).detach(), 20 * math.exp(-5 * (1 - (EPOCH - 1) / 3) ** 2)


def te(model, batch):
    t, w = te_target(model, batch)

    def loss(z):
        return F.cross_entropy(z, batch.y) + w * (z.softmax(1) - t).square().mean()

    return loss(model(climb(model, batch, loss)))


def trades_te(model, batch):
    t, w = te_target(model, batch)
    start = model(batch.x).detach()
    adv = climb(
        model,
        batch,
        lambda z: 6 / SAMPLES * kl(start, z).sum() + w * (z.softmax(1) - t).square().mean(),
    )
    clean = model(batch.x)
    stable = F.cross_entropy(clean, batch.y) + 6 * kl(clean, model(adv)).mean()
    return stable + w * (clean.softmax(1) - t).square().mean()


def lowest(function, low, high):
    """Ternary search for the minimum of a convex function."""
    for _ in range(100):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, b) if function(a) < function(b) else (a, high)
    return (low + high) / 2


def hd_value(losses, alpha, r):
    worst = losses.max()
    q = torch.full_like(losses, 1 / len(losses)).detach()
    left = alpha
    for i in losses.argsort():
        taken = min(left, float(q[i]))
        q[i], left = q[i] - taken, left - taken

    def dual(t, losses, worst):  # t = log(eta - W)
        eta = worst.detach() + math.exp(t)
        return eta - ((q * (eta - losses).log()).sum() + alpha * (eta - worst).log() - r).exp()

    best = lowest(lambda t: dual(t, losses.detach(), worst.detach()), -40, 10)
    return dual(best, losses, worst)


def hr_value(losses, alpha, r):
    known, worst = losses.detach(), losses.detach().max()

    def dual(c, t):
        eta = worst + math.exp(t)
        return eta - ((eta - known.clamp(min=c)).log().mean() - r).exp() + alpha * (worst - c)

    def best_t(c):
        return lowest(lambda t: dual(c, t), -40, 10)

    c = lowest(lambda c: dual(c, best_t(c)), float(known.min()) - 5, float(worst))
    w = 1 / (worst + math.exp(best_t(c)) - known.clamp(min=c))
    w, left = w / w.sum(), alpha
    for i in known.argsort():  # the smallest losses move to the worst atom until alpha has moved
        taken = min(left, float(w[i]))
        w[i], left = w[i] - taken, left - taken
    assert float((w * known).sum() + alpha * worst) == pytest.approx(float(dual(c, best_t(c))), rel=1e-7)
    return (w * losses).sum() + alpha * losses.max()


def holistic(value, alpha, r):
    def loss(model, batch):
        adv = ce_attack(model, batch)
        return value(F.cross_entropy(model(adv), batch.y, reduction="none"), alpha, r)

    return loss


def bat_hd(model, batch):
    z = model(ce_attack(model, batch))
    p = z.softmax(1).detach()
    q = p.scatter(1, batch.y[:, None], 0).amax(1)
    w = torch.where(p.argmax(1) != batch.y, (-2 * q).exp(), 1.0)
    return hd_value(w * F.cross_entropy(z, batch.y, reduction="none"), 0.05, 0.1) / w.mean()


TEXTBOOK = {
    "standard": ("standard", {}, standard),
    "pgd_at": ("pgd_at", {}, pgd_at),
    "trades": ("trades", {}, trades),
    "mart": ("mart", {}, mart),
    "te": ("te", {"weight": 20, "start": 1, "end": 4}, te),
    "trades te": ("te", {"over": "trades", "weight": 20, "start": 1, "end": 4}, trades_te),
    "bat te": (
        "te",
        {"over": "bat", "options": {"alpha": 0, "beta": 0}, "weight": 20, "start": 1, "end": 4},
        te,
    ),
    "hd": ("holistic", {"form": "hd", "alpha": 0.05, "r": 0.1}, holistic(hd_value, 0.05, 0.1)),
    "hd, no corruption": ("holistic", {"form": "hd"}, holistic(hd_value, 0.0, 0.2)),
    "hd, nothing": ("holistic", {"alpha": 0, "r": 0}, pgd_at),
    "hr": ("holistic", {"form": "hr", "alpha": 0.15, "r": 0.1}, holistic(hr_value, 0.15, 0.1)),
    "bat hd": (
        "bat",
        {"alpha": 2, "beta": 0, "holistic": "hd", "corruption": 0.05, "radius": 0.1},
        bat_hd,
    ),
    "fgsm_rs": ("fgsm_rs", {}, fgsm_rs),
    "n_fgsm": ("n_fgsm", {}, n_fgsm),
}


def assert_same(mine, loss, model, rtol=1e-7):
    assert mine[0] == pytest.approx(loss, rel=rtol)
    for a, b in zip(mine[1], model.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=rtol, atol=1e-8)


@pytest.mark.parametrize("case", TEXTBOOK)
def test_a_full_update_is_that_of_the_textbook(case):
    name, options, textbook = TEXTBOOK[case]
    model, batch = Net(), data()
    loss = textbook(model, batch)
    descend(model, loss)
    # The optimum of a dual is flat: the ternary search finds its place to about the root of the precision.
    assert_same(ours(name, options), loss.item(), model, 1e-5 if "h" in case else 1e-7)


def test_free_moves_images_and_weights_with_one_gradient():
    model, batch = Net(), data()
    adv = PGD(model, eps=EPS, seed=7).start(batch.x, batch.index, EPOCH)
    velocity = None
    for _ in range(3):
        adv = adv.detach().requires_grad_()
        loss = F.cross_entropy(model(adv), batch.y)
        (grad,) = torch.autograd.grad(loss, adv, retain_graph=True)
        velocity = descend(model, loss, velocity)
        adv = torch.min(torch.max(adv + EPS * grad.sign(), batch.x - EPS), batch.x + EPS).clamp(0, 1)
    assert_same(ours("free", {"replays": 3}), loss.item(), model)


def test_label_smoothing_and_clipping():
    model, batch = Net(), data()
    loss = F.cross_entropy(model(ce_attack(model, batch)), batch.y, label_smoothing=0.1)
    grads = torch.autograd.grad(loss, list(model.parameters()))
    norm = math.sqrt(sum(float(g.square().sum()) for g in grads))
    assert norm > 0.05
    with torch.no_grad():
        for p, g in zip(model.parameters(), grads, strict=True):
            p -= LR * (g * 0.05 / norm + DECAY * p)
    assert_same(ours("pgd_at", {}, label_smoothing=0.1, clip=0.05), loss.item(), model, 1e-5)


def test_awp():
    model, batch = Net(), data()
    adv = ce_attack(model, batch)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    grads = torch.autograd.grad(F.cross_entropy(model(adv), batch.y), matrices)
    moves = [0.05 * p.detach().norm() / g.norm() * g for p, g in zip(matrices, grads, strict=True)]
    with torch.no_grad():
        for p, move in zip(matrices, moves, strict=True):
            p += move
    loss = F.cross_entropy(model(adv), batch.y)
    descend(model, loss)
    with torch.no_grad():
        for p, move in zip(matrices, moves, strict=True):
            p -= move
    assert_same(ours("pgd_at", {}, awp=0.05), loss.item(), model)


@pytest.mark.parametrize("name", ["trades", "mart", "bat", "holistic", "fgsm_rs", "n_fgsm", "free"])
def test_l2_is_another_run(name):
    (one, weights), (two, _) = ours(name, {}, norm="l2"), ours(name, {})
    assert math.isfinite(one)
    assert all(weight.isfinite().all() for weight in weights)
    assert one != two


VECTORS = json.loads((Path(__file__).parents[1] / "ops" / "holistic.json").read_text())


@pytest.mark.parametrize("form", ["hd", "hr"])
def test_the_certificate_is_the_optimum_of_the_conic_solver(form):
    class Answer(nn.Module):
        def forward(self, x):
            return x.flatten(1)

    cases = [case for case in VECTORS["problems"] if case["kind"] == form and case["conic_value"] is not None]
    assert cases
    for case in cases:
        losses = torch.tensor(case["losses"], dtype=torch.float64).clamp(min=1e-9)
        # Two logits (z, 0) of class 0 with CE = log(1 + exp(-z)) = the loss.
        x = torch.stack([-losses.expm1().log(), torch.zeros_like(losses)], 1)
        batch = Batch(x, torch.zeros(len(losses), dtype=torch.int64), torch.arange(len(losses)))
        terms = create("holistic", form=form, alpha=case["alpha"], r=case["r"])(Answer(), batch, x, 0)
        assert terms.metrics["certificate"].item() == pytest.approx(case["conic_value"], rel=1e-6)
