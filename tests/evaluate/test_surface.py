import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bat_fast.batch import Batch
from bat_fast.evaluate.surface import around, chance, plane
from bat_fast.report.landscape import landscape


@pytest.fixture
def linear():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    x, y = 0.4 + 0.2 * torch.rand(5, 3, 2, 2), torch.tensor([0, 1, 2, 2, 0])
    return model, Batch(x, y, torch.tensor([9, 4, 0, 2, 7])), x + 0.05 * torch.rand_like(x)


def test_a_way_by_chance_ends_at_the_edge_of_the_ball(linear):
    _, batch, _ = linear
    signs = chance(batch.x, batch.index, 0.1, "linf", 3)
    assert signs.abs().allclose(torch.tensor(0.1))
    assert 0 < (signs > 0).float().mean() < 1
    away = chance(batch.x, batch.index, 0.1, "l2", 3)
    assert away.flatten(1).norm(dim=1) == pytest.approx(torch.full((5,), 0.1))
    assert chance(batch.x[2:], batch.index[2:], 0.1, "l2", 3).equal(away[2:])  # whatever the batch
    assert not chance(batch.x, batch.index, 0.1, "l2", 4).equal(away)


def test_the_loss_is_that_of_the_images_on_the_ways(linear):
    model, batch, x_adv = linear
    found = around(model, batch, x_adv, 0.1, "linf", 3)
    at = found.at.tolist()
    assert (at[0], at[-1]) == (-2, 2)
    with torch.no_grad():
        clean, attacked = (F.cross_entropy(model(x), batch.y, reduction="none") for x in (batch.x, x_adv))
        away = model(batch.x + 1.5 * chance(batch.x, batch.index, 0.1, "linf", 3))
    for losses in (found.attack, found.chance):
        assert losses[at.index(0)].allclose(clean, atol=1e-5)
    assert found.attack[at.index(1)].allclose(attacked, atol=1e-5)
    assert found.chance[at.index(1.5)].allclose(F.cross_entropy(away, batch.y, reduction="none"), atol=1e-5)
    one = Batch(*(part[:1] for part in batch))
    shown = plane(model, one, x_adv[:1], 0.1, "linf", 3)
    zero = at.index(0)
    assert shown.loss[zero].allclose(found.attack[:, 0], atol=1e-5)
    assert shown.loss[:, zero].allclose(found.chance[:, 0], atol=1e-5)
    assert bool(shown.right[zero, zero]) == bool(model(one.x).argmax() == one.y)


def test_pixels_stay_in_their_range():
    class Seen(nn.Module):
        def forward(self, x):
            assert x.min() >= 0
            assert x.max() <= 1
            return x.flatten(1)[:, :2]

    batch = Batch(torch.rand(2, 1, 2, 2).round(), torch.tensor([0, 1]), torch.arange(2))
    around(Seen(), batch, 1 - batch.x, 0.5, "linf", 0)


def test_the_picture_tells_how_steep_it_is(linear):
    model, batch, x_adv = linear
    found = around(model, batch, x_adv, 0.1, "linf", 3)
    one = Batch(*(part[:1] for part in batch))
    found.planes["fragile"] = plane(model, one, x_adv[:1], 0.1, "linf", 3)
    at = found.at.tolist()
    rise = found.attack[at.index(1)].median() - found.attack[at.index(0)].median()
    shown = landscape(found, "A")
    assert f"changes by {rise:+.2f} attacked" in shown["alt"]
    assert shown["svg"].count("<image") >= 1
    assert "an image that breaks" in shown["svg"]
    assert "a robust image" not in shown["svg"]
