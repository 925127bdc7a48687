"""Counting as published: an image that was misclassified at any step of any run is broken."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bat_fast.attacks import PGD, random_targets
from bat_fast.attacks.pgd import _APART

EPS, STEP, STEPS, STARTS = 0.12, 0.05, 6, 3


def case() -> tuple[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A network on which steps break images and mend them again."""
    torch.manual_seed(2)
    layers = [nn.Flatten(), nn.Linear(27, 40), nn.ReLU(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 5)]
    model = nn.Sequential(*layers).double()
    with torch.no_grad():
        for layer in (model[1], model[3]):
            layer.weight *= 20
        x = torch.rand(80, 3, 3, 3, dtype=torch.float64)
        y = model(x).argmax(1)
    return model, x, y, torch.arange(80) + 7


def published(model, x, y, start):
    """One run as in fast_adversarial: what is misclassified moves no more. The image, and when it broke."""
    adv, when = start.clone(), torch.full_like(y, -1)
    for done in range(STEPS + 1):
        with torch.no_grad():
            wrong = model(adv).argmax(1) != y
        when[wrong & (when < 0)] = done
        if done == STEPS:
            break
        leaf = adv.clone().requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(model(leaf), y), leaf)
        moved = (adv + STEP * grad.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
        adv = torch.where(wrong[:, None, None, None], adv, moved)
    return adv, when


def test_a_run_freezes_what_it_has_broken():
    model, x, y, index = case()
    attack = PGD(model, EPS, STEP, STEPS, any_step=True, seed=4)
    found = attack(x, y, index=index, draw=0)
    wanted, when = published(model, x, y, attack.start(x, index, 0))
    assert torch.allclose(found, wanted, atol=1e-12)
    assert torch.equal(attack.broke_at, when)
    assert {-1, 1} < set(when.tolist())
    plain = PGD(model, EPS, STEP, STEPS, seed=4)
    last = plain(x, y, index=index, draw=0)
    lost = (model(last).argmax(1) == y) & (model(found).argmax(1) != y)
    assert lost.any()  # broken on the way, and whole at the end
    assert plain.broke_at is None


def test_any_step_of_any_run():
    model, x, y, index = case()
    attack = PGD(model, EPS, STEP, STEPS, restarts=STARTS, any_step=True, seed=4)
    found = attack(x, y, index=index, draw=0)
    runs = [published(model, x, y, attack.start(x, index, number * _APART)) for number in range(STARTS)]
    when = torch.stack([broken for _, broken in runs])
    ever = (when >= 0).any(0)
    assert torch.equal(model(found).argmax(1) != y, ever)
    assert (ever & (when[0] < 0)).any()
    assert torch.equal(attack.broke_at >= 0, ever)
    first = (when >= 0).int().argmax(0)  # the run that broke it
    assert torch.equal(attack.broke_at[ever], when[first, torch.arange(len(y))][ever])
    part = attack(x[10:20], y[10:20], index=index[10:20], draw=0)
    assert torch.equal(part, found[10:20])


class TwoAnswers(nn.Module):
    """Dark images are wrong at a loss of 0.80, light ones right at one of 0.99."""

    def forward(self, x):
        dark, light = x.new_tensor([[0.45, 0.46, 0.09], [0.37, 0.32, 0.31]]).log()
        return torch.where(x.flatten(1).mean(1, keepdim=True) < 0.5, dark, light) + 0 * x.sum()


def test_the_published_choice_of_a_run_may_lose_a_break():
    """fast_adversarial keeps, of all runs, the image of the largest loss, which may be right: PGD-50-10 there
    counts no more than ours."""
    x, y, index = torch.full((40, 1, 1, 1), 0.5), torch.zeros(40, dtype=torch.int64), torch.arange(40)
    model, attack = TwoAnswers(), PGD(TwoAnswers(), 0.3, steps=0, restarts=4, any_step=True, engine="eager")
    starts = [attack.start(x, index, number * _APART) for number in range(4)]
    losses = torch.stack([F.cross_entropy(model(start), y, reduction="none") for start in starts])
    wrong = torch.stack([model(start).argmax(1) != y for start in starts])
    theirs = wrong.gather(0, losses.argmax(0)[None])[0]
    ours = model(attack(x, y, index=index, draw=0)).argmax(1) != y
    assert torch.equal(ours, wrong.any(0))
    assert (ours & ~theirs).any()
    assert not (theirs & ~ours).any()


def test_towards_a_random_class():
    model, x, y, index = case()
    attack, aims = PGD(model, EPS, STEP, STEPS, targeted=True, seed=4), random_targets(y, index, 5, seed=4)
    plain = PGD(model, EPS, STEP, STEPS, seed=4)
    assert torch.equal(attack(x, y, index=index, draw=0), plain(x, y, aims, index, draw=0))
    chosen = (y + 1) % 5
    assert torch.equal(attack(x, y, chosen, index, draw=0), plain(x, y, chosen, index, draw=0))


@pytest.mark.parametrize("loss", ["kl", "margin"])
def test_other_losses_step_by_step(loss):
    model, x, y, index = case()
    whole, steps = (PGD(model, EPS, STEP, 3, loss=loss, any_step=kind) for kind in (False, True))
    last, found = (attack(x, y, index=index, draw=0) for attack in (whole, steps))
    never = steps.broke_at < 0
    assert never.any()
    assert torch.allclose(last[never], found[never], atol=1e-12)


@pytest.mark.parametrize("any_step", [False, True])
def test_a_target_that_the_caller_names_counts_when_it_is_reached(any_step):
    model, x, y, index = case()
    chosen = (y + 1) % 5
    attack = PGD(model, EPS, STEP, STEPS, restarts=STARTS, any_step=any_step, seed=4)
    found = attack(x, y, chosen, index, draw=0)
    alone = PGD(model, EPS, STEP, STEPS, any_step=any_step, seed=4)
    runs = [alone(x, y, chosen, index, draw=number * _APART) for number in range(STARTS)]
    reached = torch.stack([attack.succeeds(adv, y, chosen) for adv in runs])
    assert torch.equal(attack.succeeds(found, y, chosen), reached.any(0))
    assert (reached.any(0) & ~reached[0]).any()
    # hosts give the target for the class too, as they know no other
    assert torch.equal(attack(x, chosen, chosen, index, draw=0), found)


def test_all_options_of_each_image_together():
    model, x, y, index = case()
    eps = EPS / (1 + index.double() % 2)
    how = {"restarts": 2, "any_step": True, "targeted": True, "seed": 4}
    attack = PGD(model, eps, STEP, STEPS, **how)
    found = attack(x, y, index=index, draw=0)
    for radius in (EPS, EPS / 2):
        some = (eps == radius).nonzero()[:, 0]
        one = PGD(model, radius, STEP, STEPS, **how)
        wanted = one(x[some], y[some], index=index[some], draw=0)
        torch.testing.assert_close(found[some], wanted, atol=1e-12, rtol=0)
        assert torch.equal(attack.broke_at[some], one.broke_at)
        assert (one.broke_at > 0).any()
