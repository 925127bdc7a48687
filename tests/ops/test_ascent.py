"""AutoPGD on small networks in one call: against its loop in float64, and what holds of any search."""

import pytest
import torch
from searching import EPS, NETWORKS, case, in_ball, independent_of_company
from test_network import convolutions, mlp

from bat_fast import _native
from bat_fast.ops.ascent import checkpoints, network_ascent_

STEPS = 23


def reference(adv, c, targets, loss, norm, steps):
    checks = torch.tensor(checkpoints(steps))
    _native.reference_of("network_ascent_")(
        adv, c.clean, c.y, targets, *c.given.values(), loss, norm, checks, steps, EPS[norm], 0.0, 1.0
    )
    return adv


@pytest.mark.parametrize("loss", ["ce", "dlr", "margin"])
@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("make", NETWORKS)
def test_it_is_its_loop(make, norm, loss):
    if make.__name__ == "pooled" and loss == "dlr":
        loss = "margin"  # of three classes there is no targeted dlr
    c = case(make, 37, torch.float64, norm)
    for targets in (None, c.targets):
        adv = c.start.clone()
        given = {"loss": loss, "norm": norm, "steps": STEPS, "eps": EPS[norm], **c.given}
        assert network_ascent_(adv, c.clean, c.y, targets=targets, **given) is adv
        expected = reference(c.start.clone(), c, targets, loss, norm, STEPS)
        # A gradient within rounding of 0 may have another sign, or in l2 another direction.
        same = (adv - expected).flatten(1).abs().amax(1) < 1e-8
        assert same.sum() >= 33
        assert in_ball(adv, c.clean, norm)
        moved = (adv != c.clean).flatten(1).any(1)
        assert torch.equal(moved, c.broken(adv) & moved)
        first = c.broken(c.start)
        assert torch.equal(adv[first], c.start[first])
        assert c.broken(adv).sum() > first.sum() + 2


@pytest.mark.parametrize("rows", [0, 1, 32, 65])
def test_any_number_of_images(rows):
    c = case(mlp, rows, torch.float32)
    adv = network_ascent_(c.start.clone(), c.clean, c.y, steps=5, eps=EPS["linf"], **c.given)
    broken = c.broken(adv)
    assert in_ball(adv, c.clean, "linf") if rows else len(adv) == 0
    assert torch.equal(adv[~broken], c.clean[~broken])


@pytest.mark.parametrize("norm", EPS)
def test_no_image_depends_on_another(norm, dtype):
    c = case(convolutions, 39, dtype, norm)

    def run(adv, clean, y, targets):
        how = {"loss": "margin", "norm": norm, "steps": 9, "eps": EPS[norm], **c.given}
        return network_ascent_(adv, clean, y, targets=targets, **how)

    assert independent_of_company(run, c.start, c.clean, c.y, c.targets)


def test_a_network_that_answers_no_number_is_broken():
    c = case(mlp, 5, torch.float32)
    c.given["weights"][:] = torch.nan
    adv = network_ascent_(c.start.clone(), c.clean, c.y, steps=3, eps=0.1, **c.given)
    assert torch.equal(adv, c.start)


def test_opcheck():
    c = case(convolutions, 5, torch.float32)
    rest = ("ce", "linf", torch.tensor(checkpoints(3)), 3, 0.1, 0.0, 1.0)
    arguments = (c.start.clone(), c.clean, c.y, None, *c.given.values(), *rest)
    torch.library.opcheck(torch.ops.bat_fast.network_ascent_, arguments)


def test_errors_name_the_argument():
    c = case(convolutions, 3, torch.float32)
    how = {"steps": 2, "eps": 0.1, **c.given}
    for message, call in {
        "steps must be": lambda: network_ascent_(c.start, c.clean, c.y, **how | {"steps": 0}),
        "norm must be": lambda: network_ascent_(c.start, c.clean, c.y, **how, norm="l1"),
        "loss must be": lambda: network_ascent_(c.start, c.clean, c.y, **how, loss="kl"),
        "eps must be": lambda: network_ascent_(c.start, c.clean, c.y, **how | {"eps": -1.0}),
        "clean must have the shape": lambda: network_ascent_(c.start, c.clean[:1], c.y, **how),
        "clean must have the dtype": lambda: network_ascent_(c.start, c.clean.double(), c.y, **how),
        "y holds class 12": lambda: network_ascent_(c.start, c.clean, c.y * 0 + 12, **how),
        "targets must have": lambda: network_ascent_(c.start, c.clean, c.y, targets=c.y[:1], **how),
        "target holds class": lambda: network_ascent_(c.start, c.clean, c.y, targets=c.y - 20, **how),
        "plan must be": lambda: network_ascent_(c.start, c.clean, c.y, **how | {"plan": torch.zeros(2)}),
        "weights must be": lambda: network_ascent_(
            c.start, c.clean, c.y, **how | {"weights": torch.zeros(2).double()}
        ),
    }.items():
        with pytest.raises((ValueError, TypeError), match=message):
            call()
