"""Queries of the Square attack on small networks in one call: against their loop in float64."""

import pytest
import torch
from searching import EPS, NETWORKS, case, in_ball, independent_of_company
from test_network import convolutions, mlp

from bat_fast import _native
from bat_fast.ops.squares import margin, network_squares_, pyramids

QUERIES = 40
NORMS = {"linf": 2, "l2": 5}  # numbers that all channels share


def drawn(c, queries=QUERIES, norm="linf"):
    return torch.rand(len(c.clean), queries, NORMS[norm] + c.clean.shape[1])


@pytest.mark.parametrize("side", [1, 2, 3])
@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("norm", NORMS)
def test_it_is_its_loop(norm, make, side):
    c = case(make, 37, torch.float64, norm)
    numbers = drawn(c, norm=norm)
    adv, expected = c.start.clone(), c.start.clone()
    given = {"side": side, "norm": norm, "eps": EPS[norm], **c.given}
    assert network_squares_(adv, c.clean, c.y, numbers, **given) is adv
    bumps = None if norm == "linf" else pyramids(side, c.clean)
    _native.reference_of("network_squares_")(
        expected, c.clean, c.y, numbers, bumps, *c.given.values(), side, EPS[norm], 0.0, 1.0
    )
    # Logits round otherwise, which decides between margins that are equal, as where no ReLU changes.
    same = (adv - expected).flatten(1).abs().amax(1) < 1e-9
    assert same.sum() >= 34
    assert in_ball(adv, c.clean, norm)
    before, after = margin(c.logits(c.start), c.y), margin(c.logits(adv), c.y)
    assert (after <= before).all()
    assert (after < before).sum() > 18
    assert torch.equal(adv[before <= 0], c.start[before <= 0])


@pytest.mark.parametrize("norm", NORMS)
def test_no_image_depends_on_another(norm, dtype):
    c = case(convolutions, 39, dtype, norm)

    def run(adv, clean, y, numbers):
        return network_squares_(adv, clean, y, numbers, side=2, norm=norm, eps=EPS[norm], **c.given)

    assert independent_of_company(run, c.start, c.clean, c.y, drawn(c, norm=norm))


@pytest.mark.parametrize("rows", [0, 1, 32, 65])
def test_any_number_of_images(rows):
    c = case(mlp, rows, torch.float32)
    adv = network_squares_(c.start.clone(), c.clean, c.y, drawn(c), side=1, eps=0.06, **c.given)
    assert (margin(c.logits(adv), c.y) <= margin(c.logits(c.start), c.y)).all()
    none = network_squares_(c.start.clone(), c.clean, c.y, drawn(c, 0), side=1, eps=0.06, **c.given)
    assert torch.equal(none, c.start)


def test_opcheck():
    c = case(convolutions, 5, torch.float32)
    for norm, bumps in (("linf", None), ("l2", pyramids(2, c.clean))):
        moved = (c.start.clone(), c.clean, c.y, drawn(c, norm=norm), bumps)
        arguments = (*moved, *c.given.values(), 2, 0.1, 0.0, 1.0)
        torch.library.opcheck(torch.ops.bat_fast.network_squares_, arguments)


def test_errors_name_the_argument():
    c = case(convolutions, 3, torch.float32)
    how = {"side": 2, "eps": 0.1, **c.given}
    right = drawn(c)
    for message, call in {
        "side must be": lambda: network_squares_(c.start, c.clean, c.y, right, **how | {"side": 8}),
        "numbers must be": lambda: network_squares_(c.start, c.clean, c.y, right[:, :, :3], **how),
        r"numbers must be \[N, queries, 5": lambda: network_squares_(
            c.start, c.clean, c.y, right, **how | {"norm": "l2"}
        ),
        "numbers must lie": lambda: network_squares_(c.start, c.clean, c.y, right + 1, **how),
        "y holds class": lambda: network_squares_(c.start, c.clean, c.y + 30, right, **how),
        "clean must have": lambda: network_squares_(c.start, c.clean[:1], c.y, right, **how),
    }.items():
        with pytest.raises((ValueError, TypeError), match=message):
            call()
