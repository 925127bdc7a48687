"""MAIL, GAIRAT, SCORE and HAT against their formulas, sample by sample in float64."""

import math

import pytest
import torch
from torch import nn

from bat_fast.attacks import PGD
from bat_fast.batch import Batch
from bat_fast.cli.settings import read_command
from bat_fast.config import AttackConfig, OptimConfig
from bat_fast.methods import create
from bat_fast.train import Trainer
from bat_fast.train.meter import EpochMeter
from bat_fast.train.step import TrainStep

COUNT, CLASSES = 12, 4


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double()


def batch() -> tuple[Batch, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, noise = (torch.rand(COUNT, 3, 2, 2, generator=generator).double() for _ in range(2))
    y = torch.randint(0, CLASSES, (COUNT,), generator=generator)
    return Batch(x, y, torch.arange(COUNT)), (x + 0.4 * (noise - 0.5)).clamp(0, 1)


def probabilities(logits):
    """The softmax of a row, written out."""
    e = (logits - logits.max()).exp()
    return e / e.sum()


def margin(p, label):
    p = p.tolist()
    return max(p[t] for t in range(CLASSES) if t != label) - p[label]


def mail(net, data, x_adv, weigh):
    rows, weights = [], []
    for x, x_, y in zip(net(data.x), net(x_adv), data.y.tolist(), strict=True):
        p, p_ = probabilities(x), probabilities(x_)
        weights.append(weigh(margin(p_, y)))
        rows.append((-p[y].log(), (p * (p / p_).log()).sum(), -p_[y].log()))
    return rows, weights


def same(loss, other, net):
    assert loss.item() == pytest.approx(other.item(), rel=1e-12)
    ours, theirs = (torch.autograd.grad(value, list(net.parameters())) for value in (loss, other))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("over", ["pgd_at", "trades"])
@pytest.mark.parametrize("normalize", ["scale", "mean"])
@pytest.mark.parametrize("epoch", [4, 5])
def test_mail(over, normalize, epoch):
    net, (data, x_adv) = model(), batch()
    options = {"slope": 7.0, "bias": 0.2, "scale": 3.0, "beta": 4.0, "start": 5}
    terms = create("mail", over=over, normalize=normalize, **options)(net, data, x_adv, epoch)

    def weigh(m):
        sigmoid = 1 / (1 + math.exp(-7 * (m + 0.2)))
        return 1.0 if epoch < 5 else sigmoid * (1 if normalize == "mean" else 3)

    rows, weights = mail(net, data, x_adv, weigh)
    if normalize == "mean":
        weights = [w * COUNT / sum(weights) for w in weights]
    pairs = list(zip(rows, weights, strict=True))
    if over == "pgd_at":
        wanted = sum(w * adv for (_, _, adv), w in pairs) / COUNT
    else:
        wanted = sum(clean + 4 * w * kl for (clean, kl, _), w in pairs) / COUNT
    same(terms.total, wanted, net)
    assert float(terms.metrics["weight_mean"]) == pytest.approx(sum(weights) / COUNT)


def test_mail_looks_at_what_bat_looks_away_from():
    logits, y = torch.tensor([[0.0, 4.0], [4.0, 0.0]]), torch.tensor([0, 0])  # wrong with confidence, right
    wrong, right = create("mail", start=0).weights(logits, y, 0)
    assert wrong > right


def test_mail_attacks_as_its_method_does():
    net, (data, _) = model(), batch()
    assert create("mail").attack_loss(net, data, 0).loss == "ce"
    assert create("mail", over="trades").attack_loss(net, data, 0).loss == "kl"


WEIGHTS = {
    "tanh": lambda k: (1 + math.tanh(-0.5 + 5 * (5 - k) / 5)) / 2,
    "sigmoid": lambda k: 1 / (1 + math.exp(0.5 - 5 * (5 - k) / 5)),
    "discrete": lambda k: (11 - k) / 11,
}


@pytest.mark.parametrize("function", WEIGHTS)
def test_gairat(function):
    net, (data, _) = model(), batch()
    how = create("gairat", function=function, shift=-0.5, start=3)
    how.prepare(COUNT, CLASSES, "cpu")
    attack = PGD(net, 0.3, **({"steps": 10, "step_size": 0.05} | how.attack_options({"steps": 10})))
    with torch.no_grad():
        objective = how.attack_loss(net, data, 3)
    x_adv = attack(data.x, data.y, index=data.index, objective=objective, draw=0)

    plain, kappa, at = PGD(net, 0.3, steps=1, step_size=0.05), [0] * COUNT, None
    at = plain.start(data.x, data.index, 0)
    for _ in range(10):  # by hand: who is still right at the beginning of each step
        right = net(at).argmax(1) == data.y
        kappa = [k + int(r) for k, r in zip(kappa, right, strict=True)]
        leaf = at.clone().requires_grad_()
        (grad,) = torch.autograd.grad(nn.functional.cross_entropy(net(leaf), data.y), leaf)
        at = (at + 0.05 * grad.sign()).clamp(data.x - 0.3, data.x + 0.3).clamp(0, 1)
    assert torch.allclose(at, x_adv, atol=1e-12)
    assert len(set(kappa)) > 2

    weights = [WEIGHTS[function](k) for k in kappa]
    for epoch, weighed in ((3, weights), (2, [1.0] * COUNT)):
        rows = zip(weighed, net(x_adv), data.y.tolist(), strict=True)
        wanted = sum(-w * probabilities(row)[y].log() for w, row, y in rows) / sum(weighed)
        same(how(net, data, x_adv, epoch).total, wanted, net)
    assert float(how(net, data, x_adv, 3).metrics["steps_withstood"]) == pytest.approx(sum(kappa) / COUNT)


def test_gairat_needs_steps_to_count():
    with pytest.raises(ValueError, match=r"attack\.steps must be at least 2, got 1"):
        create("gairat").attack_options({"steps": 1})
    with pytest.raises(RuntimeError, match="call prepare"):
        create("gairat").attack_loss(model(), batch()[0], 0)


def test_score():
    net, (data, x_adv) = model(), batch()
    terms = create("score", beta=3.0, smoothing=0.3)(net, data, x_adv, 0)
    wanted = 0.0
    for x, x_, y in zip(net(data.x), net(x_adv), data.y.tolist(), strict=True):
        p, p_ = probabilities(x), probabilities(x_)
        target = torch.tensor([0.7 if c == y else 0.1 for c in range(CLASSES)], dtype=torch.float64)
        wanted = wanted + ((p - target) ** 2).sum() + 3 * ((p_ - p) ** 2).sum()
    same(terms.total, wanted / COUNT, net)


def test_the_attack_of_score_climbs_the_distance():
    net, (data, x_adv) = model(), batch()
    how = create("score")
    with torch.no_grad():
        objective = how.attack_loss(net, data, 0)
        distance = (net(x_adv).softmax(1) - net(data.x).softmax(1)).square().sum(1)
        assert torch.allclose(objective.loss(net(x_adv), data.y), distance)
    assert how.attack_options({"engine": "auto", "bn_updates": False}) == {"engine": "frozen"}
    assert how.attack_options({"engine": "eager", "bn_updates": False}) == {}
    assert how.attack_options({"engine": "auto", "bn_updates": True}) == {}


def test_hat():
    net, (data, x_adv), helper = (
        model(),
        batch(),
        nn.Sequential(nn.Flatten(), nn.Linear(12, CLASSES)).double(),
    )
    how = create("hat", reach=1.5, beta=3, gamma=0.7)
    with pytest.raises(RuntimeError, match="call consult"):
        how(net, data, x_adv, 0)
    how.consult(helper)
    beyond = net(data.x + 1.5 * (x_adv - data.x))
    rows = zip(
        net(data.x), net(x_adv), beyond, helper(x_adv).argmax(1).tolist(), data.y.tolist(), strict=True
    )
    wanted = 0.0
    for x, x_, far, label, y in rows:
        p, p_ = probabilities(x), probabilities(x_)
        wanted = wanted - p[y].log() + 3 * (p * (p / p_).log()).sum() - 0.7 * probabilities(far)[label].log()
    same(how(net, data, x_adv, 0).total, wanted / COUNT, net)
    assert how.attack_loss(net, data, 0).loss == "kl"
    assert all(weight.grad is None for weight in helper.parameters())


def test_the_helper_is_the_model_of_another_run(tmp_path):
    def trainer(out, *words):
        words = [*words, "--epochs", "1", "--batch_size", "512", "--eval.test_steps", "1", "--device", "cpu"]
        return Trainer(read_command([*words, "--eval.val_steps", "1"]).config, out, progress=False)

    helper = trainer(tmp_path / "helper", "--recipe", "digits-standard")
    helper.fit()
    hat = trainer(tmp_path / "hat", "--recipe", "digits-hat", "--method.helper", str(tmp_path / "helper"))
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(hat.method._helper(x), helper.evaluated.eval()(x))
    with pytest.raises(ValueError, match=r"method\.helper is missing"):
        trainer(tmp_path / "none", "--method.name", "hat")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        trainer(tmp_path / "none", "--recipe", "digits-hat", "--method.helper", str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["mail", "gairat", "score"])
def test_an_update_moves_the_weights(name):
    net, (data, _) = model().train(), batch()
    how = create(name)
    how.prepare(COUNT, CLASSES, "cpu")
    given = {"steps": 2, "eps": 0.1, "engine": "auto", "bn_updates": False}
    attack = PGD(net, **(given | how.attack_options(given)))
    before, sgd = net[1].weight.clone(), torch.optim.SGD(net.parameters(), 0.1)
    TrainStep(net, how, attack, sgd, AttackConfig(), OptimConfig())(data, 100, EpochMeter("cpu"))
    assert not torch.equal(net[1].weight, before)


def test_temporal_ensembling_adds_to_named_losses_alone():
    net, (data, _) = model(), batch()
    how = create("te", over="score", start=0, end=1)
    how.prepare(COUNT, CLASSES, "cpu")
    with torch.no_grad(), pytest.raises(TypeError, match=r"te\.over: score climbs a loss of its own"):
        how.attack_loss(net, data, 0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mail", {"over": "mart"}, "mail.over"),
        ("mail", {"slope": -1}, "mail.slope"),
        ("mail", {"scale": 0}, "mail.scale"),
        ("gairat", {"function": "cosine"}, "gairat.function"),
        ("gairat", {"start": -1}, "gairat.start"),
        ("score", {"beta": -1}, "score.beta"),
        ("hat", {"reach": -1}, "hat.reach"),
        ("score", {"smoothing": 1}, "score.smoothing must be below 1"),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        create(name, **options)
