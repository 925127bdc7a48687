"""The base of all attacks: what a kind of attack gets for its loop and its tensors alone."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from bat_fast import AttackLoss
from bat_fast.attacks import Attack
from bat_fast.attacks.goal import Goal
from bat_fast.attacks.step import Step


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
        nn.Linear(6 * 64, 5),
    )  # fmt: skip


def margin(logits, y):
    true = logits.gather(1, y[:, None])[:, 0]
    return logits.scatter(1, y[:, None], -torch.inf).amax(1) - true


class Kept(Attack):
    """Keeps what it was asked."""

    def run(self, adv, problem):
        self.asked = adv.clone(), problem


@dataclass(frozen=True)
class Guess:
    lo: float
    hi: float

    def __call__(self, network, *, adv, clean, y, noise):
        best = margin(network.forward(adv), y)
        for change in noise:
            tried = (clean + change).clamp(self.lo, self.hi)
            reached = margin(network.forward(tried), y)
            better = reached > best
            best = torch.where(better, reached, best)
            adv.copy_(torch.where(better[:, None, None, None], tried, adv))


class Search(Attack):
    """Random search: no gradient, and noise of its own."""

    def run(self, adv, problem):
        generator = torch.Generator().manual_seed(self.seed + problem.draw)
        noise = self.eps * (2 * torch.rand((4, *adv.shape), generator=generator, dtype=adv.dtype) - 1)
        self.iterate(Guess(self.lo, self.hi), adv=adv, clean=problem.clean, y=problem.y, noise=noise)


@dataclass(frozen=True)
class Roll:
    step: Step

    def __call__(self, network, *, adv, velocity, clean, **given):
        goal = Goal.of("margin", 0.0, network, clean, **given)
        for _ in range(3):
            grad, _ = goal.gradient(network, adv)
            self.step(adv, velocity.add_(grad), clean)


class Momentum(Attack):
    """Gradients that add up in a tensor of its own, which outlives the loop."""

    def run(self, adv, problem):
        self.velocity = torch.zeros_like(adv)
        self.iterate(Roll(self.step), adv=adv, velocity=self.velocity, **problem.tensors)


def batch(n=6):
    return torch.rand(n, 1, 8, 8).double(), torch.randint(0, 5, (n,))


def test_a_kind_of_attack_is_its_run():
    with pytest.raises(TypeError, match="run"):
        Attack(network())


def test_run_gets_the_start_and_the_checked_problem():
    x, y = batch()
    index, targets, objective = torch.arange(6).flip(0), (y + 1) % 5, AttackLoss("margin")
    attack = Kept(network().double().train(), eps=0.1, lo=-0.5, seed=3)
    result = attack(x, y, targets, index, objective=objective, draw=7)
    start, problem = attack.asked
    assert torch.equal(result, start)
    assert torch.equal(start, attack.start(x, index, 7))
    assert torch.equal(problem.clean, x)
    assert torch.equal(problem.y, y)
    assert problem.targets is targets
    assert problem.objective is objective
    assert problem.index is index
    assert problem.draw == 7


def test_calls_are_counted_and_the_loss_is_the_objective():
    attack, (x, y) = Kept(network().double(), loss="dlr"), batch()
    for count in range(3):
        attack(x, y)
        assert attack.asked[1].draw == count
        assert attack.asked[1].objective == AttackLoss("dlr")


def test_an_empty_batch_is_not_run():
    attack = Kept(network())
    assert len(attack(torch.empty(0, 1, 8, 8), torch.empty(0, dtype=torch.int64))) == 0
    assert not hasattr(attack, "asked")


@pytest.mark.parametrize("engine", ["eager", "frozen", "measure"])
@pytest.mark.parametrize("kind", [Search, Momentum])
def test_loops_of_others_run_on_every_engine(kind, engine):
    model, (x, y) = network().double().eval(), batch()
    expected = kind(model, eps=0.1, engine="eager")(x, y, draw=1)
    adv = kind(model, eps=0.1, engine=engine)(x, y, draw=1)
    torch.testing.assert_close(adv, expected, rtol=0, atol=1e-9)
    assert (adv - x).abs().max() <= 0.1 + 1e-9
    assert adv.min() >= 0
    assert adv.max() <= 1
    assert (margin(model(adv), y) > margin(model(x), y)).double().mean() > 0.5


def test_tensors_of_its_own_are_moved():
    model, (x, y) = network().double().eval(), batch()
    attack = Momentum(model)
    attack(x, y)
    assert attack.velocity.abs().sum() > 0


@pytest.mark.parametrize("bn_mode", ["eval", "train"])
@pytest.mark.parametrize("kind", [Search, Momentum])
def test_the_model_is_untouched(kind, bn_mode):
    model, (x, y) = network().double().train(), batch()
    model[0].bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        kind(model, eps=0.1, bn_mode=bn_mode)(x, y)
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [True, False, *[True] * 4]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_its_text_names_its_kind():
    assert repr(Kept(network(), eps=0.1)).startswith("Kept(eps=0.1, step_size=0.025, norm='linf'")
