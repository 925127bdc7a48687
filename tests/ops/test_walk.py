"""The walk along a boundary on small networks in one call: against its loop in float64."""

import pytest
import torch
from searching import EPS, NETWORKS, case, in_ball, independent_of_company
from test_network import convolutions, mlp

from bat_fast import _native
from bat_fast.ops.walk import network_walk_

STEPS = 12


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("make", NETWORKS)
def test_it_is_its_loop(make, norm):
    c = case(make, 37, torch.float64, norm)
    for targets in (None, c.targets):
        adv, expected = c.start.clone(), c.start.clone()
        given = {"norm": norm, "steps": STEPS, "eps": EPS[norm], **c.given}
        assert network_walk_(adv, c.clean, c.y, targets=targets, **given) is adv
        _native.reference_of("network_walk_")(
            expected, c.clean, c.y, targets, *c.given.values(), norm, STEPS, EPS[norm], 0.0, 1.0
        )
        same = (adv - expected).flatten(1).abs().amax(1) < 1e-7
        assert same.sum() >= 34
        assert in_ball(adv, c.clean, norm)
        moved = (adv != c.clean).flatten(1).any(1)
        assert moved.sum() > 2
        assert c.broken(adv)[moved].all()


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", EPS)
def test_no_image_depends_on_another(norm, targeted, dtype):
    c = case(convolutions, 39, dtype, norm)

    def run(adv, clean, y, targets):
        how = {"norm": norm, "steps": 9, "eps": EPS[norm], **c.given}
        return network_walk_(adv, clean, y, targets=targets if targeted else None, **how)

    assert independent_of_company(run, c.start, c.clean, c.y, c.targets)


@pytest.mark.parametrize("rows", [0, 1, 32, 65])
def test_any_number_of_images(rows):
    c = case(mlp, rows, torch.float32)
    adv = network_walk_(c.start.clone(), c.clean, c.y, targets=None, steps=5, eps=EPS["linf"], **c.given)
    broken = c.broken(adv)
    assert torch.equal(adv[~broken], c.clean[~broken])


def test_opcheck():
    c = case(convolutions, 5, torch.float32)
    arguments = (c.start.clone(), c.clean, c.y, None, *c.given.values(), "l2", 3, 0.1, 0.0, 1.0)
    torch.library.opcheck(torch.ops.bat_fast.network_walk_, arguments)


def test_errors_name_the_argument():
    c = case(convolutions, 3, torch.float32)
    how = {"steps": 2, "eps": 0.1, "targets": None, **c.given}
    for message, call in {
        "steps must be": lambda: network_walk_(c.start, c.clean, c.y, **how | {"steps": 0}),
        "norm must be": lambda: network_walk_(c.start, c.clean, c.y, **how, norm="l1"),
        "targets holds class": lambda: network_walk_(c.start, c.clean, c.y, **how | {"targets": c.y - 20}),
        "clean must have": lambda: network_walk_(c.start, c.clean[:1], c.y, **how),
        "adv must be": lambda: network_walk_(c.start[0], c.clean[0], c.y, **how),
    }.items():
        with pytest.raises((ValueError, TypeError), match=message):
            call()
