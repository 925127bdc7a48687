"""GKL, MLCAT, ReBAT and KD-SWA against their published formulas, sample by sample in float64."""

import math

import pytest
import torch
from test_reweighted import CLASSES, COUNT, batch, model, probabilities, same
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from bat_fast.attacks import PGD
from bat_fast.batch import Batch
from bat_fast.cli.settings import read_command
from bat_fast.config import AttackConfig, OptimConfig
from bat_fast.methods import create
from bat_fast.methods.gkl import spread
from bat_fast.train import Trainer
from bat_fast.train.meter import EpochMeter
from bat_fast.train.step import TrainStep


def gkl(**options):
    how = create("gkl", **options)
    how.prepare(COUNT, CLASSES, "cpu")
    return how


def divergence(adv, clean, prior, alpha, beta, gamma):
    """As published: all pairs of classes, and one sum of weights for the whole batch."""
    w = prior**gamma
    pairs = w[:, :, None] * w[:, None, :]
    apart = (clean[:, :, None] - clean[:, None, :]) - (adv[:, :, None] - adv[:, None, :])
    answers = clean.detach().softmax(1)
    return (
        beta * (apart.square() * pairs).sum() / (4 * pairs.sum())
        - alpha * (answers * adv.log_softmax(1)).sum(1).mean()
    )


def test_the_sum_over_pairs_has_a_closed_form():
    torch.manual_seed(3)
    d, w = torch.randn(5, 7, dtype=torch.float64), torch.rand(5, 7, dtype=torch.float64)
    pairs = w[:, :, None] * w[:, None, :] * (d[:, :, None] - d[:, None, :]).square()
    found, size = spread(d, w)
    assert torch.allclose(found, pairs.sum((1, 2)) / 2, rtol=1e-13)
    assert torch.allclose(size, w.sum(1))
    assert torch.allclose(spread(d + 1e6, w)[0], found, rtol=1e-8)  # no cancellation of squares


@pytest.mark.parametrize("gamma", [1.0, 0.4])
def test_gkl(gamma):
    net, (data, x_adv) = model(), batch()
    how = gkl(alpha=3, beta=5, gamma=gamma, temperature=2)
    prior = torch.full((CLASSES, CLASSES), 1 / CLASSES, dtype=torch.float64)
    for epoch in range(3):
        clean, adv = net(data.x), net(x_adv)
        wanted = F.cross_entropy(clean, data.y) + divergence(adv, clean, prior[data.y], 3, 5, gamma)
        half = COUNT // 2  # in two batches what is kept of both makes the next prior
        same(how(net, data, x_adv, epoch).total, wanted, net)
        for rows in (slice(0, half), slice(half, None)):
            how(net, Batch(*(part[rows] for part in data)), x_adv[rows], epoch)
        means = []
        for kind in range(CLASSES):
            said = (net(data.x[data.y == kind]) / 2).softmax(1)
            means.append(said.mean(0) if len(said) else torch.full((CLASSES,), 0.25).double())
        prior = torch.stack(means).detach()
        with torch.no_grad():
            net[1].weight += 0.1  # or every epoch would say the same
    assert len(data.y.unique()) >= 3


def test_a_class_without_images_has_no_opinion():
    net, (data, x_adv) = model(), batch()
    how = gkl()
    how(net, data._replace(y=torch.zeros_like(data.y)), x_adv, 0)
    assert torch.isfinite(how(net, data, x_adv, 1).total)
    assert torch.allclose(how._prior[1:], torch.full((CLASSES - 1, CLASSES), 0.25).double())


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_the_attack_of_gkl(beta):
    """From the same start; the published loss is a mean, which moves no sign."""
    net, (data, x_adv) = model(), batch()
    how = gkl(attack_beta=beta, gamma=0.3)
    how(net, data, x_adv, 0)  # the next epoch has a prior
    attack = PGD(net, 0.2, 0.05, 5, random_start="gaussian", engine="eager")
    with torch.no_grad():
        objective = how.attack_loss(net, data, 1)
        clean = net(data.x)
    found = attack(data.x, data.y, index=data.index, objective=objective, draw=0)
    at = attack.start(data.x, data.index, 0)
    for _ in range(5):
        at = at.detach().requires_grad_()
        loss = divergence(net(at), clean, how._prior[data.y], 1.0, beta, 1.0)
        (grad,) = torch.autograd.grad(loss, at)
        at = (at + 0.05 * grad.sign()).clamp(data.x - 0.2, data.x + 0.2).clamp(0, 1)
    assert torch.allclose(found, at, atol=1e-12)


def test_weight_perturbation_counts_no_sample_twice():
    net, (data, x_adv) = model(), batch()
    once, twice = gkl(), gkl()
    once(net, data, x_adv, 0)
    twice(net, data, x_adv, 0)
    twice(net, data, x_adv, 0)
    one, two = (how(net, data, x_adv, 1).total for how in (once, twice))
    assert one == two


def test_gkl_goes_on_from_its_state():
    net, (data, x_adv) = model(), batch()
    how, other = gkl(), gkl()
    how(net, data, x_adv, 0)
    other.load_state_dict(how.state_dict())
    assert other(net, data, x_adv, 1).total == how(net, data, x_adv, 1).total
    with pytest.raises(RuntimeError, match="gkl: call prepare"):
        create("gkl").attack_loss(net, data, 0)
    with pytest.raises(ValueError, match="keeps a state"):
        create("te", over="gkl")


@pytest.mark.parametrize("detach", [True, False])
def test_mlcat(detach):
    net, (data, x_adv) = model(), batch()
    terms = create("mlcat", threshold=1.4, detach=detach)(net, data, x_adv, 0)
    losses = [-probabilities(row)[y].log() for row, y in zip(net(x_adv), data.y.tolist(), strict=True)]
    below = [loss for loss in losses if loss < 1.4]
    assert 0 < len(below) < COUNT
    factors = [1.4 / loss if loss < 1.4 else 1.0 for loss in losses]  # as published: with its gradient
    if detach:
        factors = [1.4 / loss.item() if loss < 1.4 else 1.0 for loss in losses]
    wanted = sum(factor * loss for factor, loss in zip(factors, losses, strict=True)) / COUNT
    same(terms.total, wanted, net)
    assert float(terms.metrics["constrained"]) == pytest.approx(len(below) / COUNT)


def test_the_published_factor_of_mlcat_takes_small_losses_out():
    """Not detached, its product with the loss is the threshold, and has no gradient: this is PGD-AT on the
    other samples."""
    net, (data, x_adv) = model(), batch()
    total = create("mlcat", threshold=1.4, detach=False)(net, data, x_adv, 0).total
    losses = F.cross_entropy(net(x_adv), data.y, reduction="none")
    above = losses[losses >= 1.4].sum() / COUNT
    for a, b in zip(
        *(torch.autograd.grad(loss, list(net.parameters())) for loss in (total, above)), strict=True
    ):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("detach", [True, False])
def test_a_loss_of_nothing_stays_finite(detach):
    class Sure(nn.Module):
        def forward(self, x):
            return x.flatten(1)

    x = torch.tensor([[0.0, 60.0], [17.0, 0.0]], requires_grad=True)  # float32: the second is 4e-8, or 0
    data = Batch(x, torch.tensor([1, 0]), torch.arange(2))
    total = create("mlcat", detach=detach)(Sure(), data, x, 0).total
    total.backward()
    assert math.isfinite(total.item())
    assert x.grad.abs().max() <= 1.5


def test_rebat():
    net, (data, x_adv) = model(), batch()
    how = create("rebat", beta=2.0, start=3)
    average = AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    how.follow(average.module, average.n_averaged)
    plain = F.cross_entropy(net(x_adv), data.y)
    assert how(net, data, x_adv, 2).total == plain  # before the start
    assert how(net, data, x_adv, 3).total == plain  # before the average has begun
    average.update_parameters(net)
    with torch.no_grad():
        net[1].weight += 0.3
    average.update_parameters(net)
    own, mean = net[1].weight.detach(), average.module[1].weight
    assert torch.allclose(mean, own - 0.27)  # 0.9 (own - 0.3) + 0.1 own
    wanted = 0.0
    for z, a, y in zip(net(x_adv), average.module(x_adv).detach(), data.y.tolist(), strict=True):
        p, q = probabilities(z), probabilities(a)
        wanted = wanted - p[y].log() + 2 * (q * (q / p).log()).sum()
    terms = how(net, data, x_adv, 3)
    same(terms.total, wanted / COUNT, net)
    assert terms.metrics["kl"] > 0


def test_rebat_leaves_the_average_as_it_is():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, CLASSES)).double()
    data, x_adv = batch()
    average = AveragedModel(net, use_buffers=True)
    average.update_parameters(net)
    before = {name: value.clone() for name, value in average.state_dict().items()}
    how = create("rebat", start=0)
    how.follow(average.module, average.n_averaged)
    how(net.train(), data, x_adv, 0).total.backward()
    assert all(torch.equal(value, before[name]) for name, value in average.state_dict().items())
    assert all(weight.grad is None for weight in average.parameters())
    assert average.module.training


def run(out, *more):
    quick = ["--epochs", "1", "--batch_size", "512", "--eval.test_steps", "1", "--eval.val_steps", "1"]
    words = [*more, *quick, "--attack.steps", "1", "--device", "cpu"]
    return Trainer(read_command(words).config, out, progress=False)


def test_rebat_follows_the_average_of_its_run(tmp_path):
    begin = ["--recipe", "digits-rebat", "--method.start", "0", "--optim.average_start", "0"]
    trainer = run(tmp_path / "rebat", *begin)
    average, data, meter = trainer.parts.average, next(iter(trainer.loader)), EpochMeter("cpu")
    divergences = []
    for _ in range(3):
        divergences.append(float(trainer.step(data, 0, meter).metrics["kl"]))
        average.update_parameters(trainer.model)
    assert divergences[0] == 0  # the average begins with the first step
    assert divergences[1] >= 0
    assert divergences[2] > 0
    with pytest.raises(ValueError, match="rebat needs an average of the weights: set"):
        run(tmp_path / "none", *begin, "--optim.average", "none")
    with pytest.raises(RuntimeError, match="rebat: call follow"):
        create("rebat", start=0)(model(), *batch(), 0)


def test_kd_swa():
    net, (data, x_adv) = model(), batch()
    torch.manual_seed(5)
    helpers = [nn.Sequential(nn.Flatten(), nn.Linear(12, CLASSES)).double() for _ in range(2)]
    how = create("kd_swa", hard=0.3, standard=0.1, robust=0.6, temperature=2.5)
    with pytest.raises(RuntimeError, match="kd_swa: call consult"):
        how(net, data, x_adv, 0)
    for helper in helpers:
        how.consult(helper)
    wanted = 0.0
    for z, g, r, y in zip(net(x_adv), *(h(x_adv).detach() for h in helpers), data.y.tolist(), strict=True):
        soft = probabilities(z / 2.5).log()
        wanted = wanted - 0.3 * probabilities(z)[y].log()
        wanted = wanted - 0.1 * 2.5**2 * (probabilities(g / 2.5) * soft).sum()
        wanted = wanted - 0.6 * 2.5**2 * (probabilities(r / 2.5) * soft).sum()
    same(how(net, data, x_adv, 0).total, wanted / COUNT, net)
    assert all(weight.grad is None for helper in helpers for weight in helper.parameters())


@pytest.mark.slow
def test_both_helpers_are_models_of_other_runs(tmp_path):
    run(tmp_path / "g", "--recipe", "digits-standard").fit()
    taught = ["--recipe", "digits-pgd-at", "--method.name", "kd_swa", "--method.helper", str(tmp_path / "g")]
    with pytest.raises(ValueError, match=r"method\.robust_helper is missing: .* --method pgd_at"):
        run(tmp_path / "kd", *taught)
    trainer = run(tmp_path / "kd", *taught, "--method.robust_helper", str(tmp_path / "g"))
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(*(helper(x) for helper in trainer.method._helpers))
    assert trainer.method._helpers[0] is not trainer.method._helpers[1]


@pytest.mark.parametrize("name", ["gkl", "mlcat"])
def test_an_update_moves_the_weights(name):
    net, (data, _) = model().train(), batch()
    how = create(name)
    how.prepare(COUNT, CLASSES, "cpu")
    given = {"steps": 2, "eps": 0.1, "engine": "auto", "bn_updates": False}
    attack = PGD(net, **(given | how.attack_options(given)))
    before, sgd = net[1].weight.clone(), torch.optim.SGD(net.parameters(), 0.1)
    optim = OptimConfig(awp=0.01)
    TrainStep(net, how, attack, sgd, AttackConfig(), optim)(data, 100, EpochMeter("cpu"))
    assert not torch.equal(net[1].weight, before)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gkl", {"beta": -1}, "gkl.beta"),
        ("gkl", {"temperature": 0}, "gkl.temperature"),
        ("mlcat", {"threshold": -1}, "mlcat.threshold"),
        ("rebat", {"start": -1}, "rebat.start"),
        ("kd_swa", {"temperature": 0}, "kd_swa.temperature"),
        ("kd_swa", {"robust": -1}, "kd_swa.robust"),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        create(name, **options)
