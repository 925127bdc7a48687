"""The switch: every engine by name, chosen, compiled, measured."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bat_fast import PGD, AttackLoss, models


def tiny() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5)).eval()


@pytest.mark.parametrize("engine", ["auto", "eager", "frozen", "measure"])
@pytest.mark.parametrize("loss", ["ce", "kl", "dlr"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_engine_climbs_alike(engine, loss, norm, device, capsys):
    # The kernels of a GPU take float32: signs of gradients near zero differ there.
    dtype = torch.float64 if device == "cpu" else torch.float32
    model = models.create("small_cnn", num_classes=5, in_channels=1).to(device, dtype)
    x = torch.rand(8, 1, 9, 9, device=device).to(dtype)
    # DLR is constant where the label comes third: l2 would scale the rounding of a zero gradient up.
    y = model.eval()(x).argmax(1)
    options = {"eps": 0.1, "steps": 4, "norm": norm, "loss": loss}
    expected = PGD(model, engine="eager", **options)(x, y, draw=3)
    found = PGD(model, engine=engine, **options)(x, y, draw=3)
    if device == "cpu":
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
    else:
        assert ((found - expected).abs() < 1e-4).float().mean() > 0.97
    assert ("takes" in capsys.readouterr().err) == (engine == "measure")


def test_measure_chooses_once_per_shape(capsys):
    attack = PGD(tiny(), engine="measure", steps=2)
    for count, batch in ((1, 4), (1, 4), (2, 6), (2, 4)):
        x, y = torch.rand(batch, 1, 8, 8), torch.zeros(batch, dtype=torch.int64)
        attack(x, y)
        printed = capsys.readouterr().err
        seen = count if batch == 6 or count == 1 else 1
        assert printed.count("takes") <= 1
        if seen == 2:
            assert f"[{batch}, 1, 8, 8]" in printed


@pytest.mark.slow
def test_compiled_attack(device):
    model, x, y = tiny().to(device), torch.rand(4, 1, 8, 8, device=device), torch.arange(4, device=device)
    attack = PGD(model, engine="compile", steps=3)
    torch.testing.assert_close(
        attack(x, y, draw=0), PGD(model, engine="eager", steps=3)(x, y, draw=0), rtol=0, atol=1e-6
    )
    with torch.no_grad():
        model[1].weight.mul_(-1)
    torch.testing.assert_close(
        attack(x, y, draw=0), PGD(model, engine="eager", steps=3)(x, y, draw=0), rtol=0, atol=1e-6
    )


def test_the_engine_can_be_changed_and_the_attack_copied():
    model, x, y = tiny(), torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64)
    attack = PGD(model, engine="eager", steps=2)
    first = attack(x, y, draw=0)
    attack.engine = "frozen"
    torch.testing.assert_close(attack(x, y, draw=0), first, rtol=0, atol=1e-6)
    torch.testing.assert_close(copy.deepcopy(attack)(x, y, draw=0), first, rtol=0, atol=1e-6)


def test_float16_gradients_do_not_vanish():
    """A confident network: its gradients are below what float16 holds, and their signs must survive."""
    model = tiny()
    with torch.no_grad():
        model[3].weight.mul_(30)
    x = torch.rand(16, 1, 8, 8)
    y = model(x).argmax(1)
    model = model.double()
    exact, half = (
        PGD(model, precision=precision, engine="frozen", random_start=False, steps=1)(x.double(), y)
        for precision in (None, "fp16")
    )
    assert (exact - half).abs().gt(1e-6).float().mean() < 0.1
    assert F.cross_entropy(model(half), y) > F.cross_entropy(model(x.double()), y)


def test_targeted_and_soft_objectives_reach_the_loop():
    model, x, y = tiny(), torch.rand(4, 1, 8, 8), torch.arange(4)
    soft = torch.rand(4, 5).softmax(1)
    for objective, targets in ((AttackLoss("ce+te", soft=soft, soft_weight=2.0), None), (None, (y + 1) % 5)):
        results = [
            PGD(model, engine=engine, steps=3)(x, y, targets, objective=objective, draw=0)
            for engine in ("eager", "frozen")
        ]
        torch.testing.assert_close(*results, rtol=0, atol=1e-6)
