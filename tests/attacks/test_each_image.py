"""What hosts ask of an attack: a radius for each image, the best point of the path, who was fooled."""

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DataParallel, DistributedDataParallel

from bat_fast import PGD
from bat_fast.attacks import APGD, FGSM

EPS = torch.tensor([0.0, 0.02, 0.05, 0.1, 0.2, 0.3])
X, Y = torch.full((6, 3, 8, 8), 0.5), torch.zeros(6, dtype=torch.int64)


def net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(32, 5)).eval()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(6, 3, 8, 8), torch.randint(0, 5, (6,))


@pytest.mark.parametrize("engine", ["eager", "auto"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_radius_for_each_image_is_that_of_a_batch_of_one(norm, engine, batch):
    x, y = batch
    model = net()
    for options in ({"step_size": EPS / 3}, {"step_size": 0.01}, {}, {"keep": "best"}):
        common = {"steps": 5, "norm": norm, "random_start": False, "engine": "eager"}
        found = PGD(model, EPS, **common | options | {"engine": engine})(x, y)
        for i, eps in enumerate(EPS.tolist()):
            alone = {k: float(v[i]) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
            expected = PGD(model, eps, **common | alone)(x[i : i + 1], y[i : i + 1])
            torch.testing.assert_close(found[i : i + 1], expected, atol=1e-6, rtol=0)
    found = FGSM(model, EPS, norm=norm, engine=engine)(x, y)
    torch.testing.assert_close(found[3:4], FGSM(model, 0.1, norm=norm)(x[3:4], y[3:4]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_starts_fill_the_ball_of_each_image(norm, batch):
    x, y = torch.full_like(batch[0], 0.5), batch[1]
    away = (PGD(net(), EPS, steps=0, norm=norm)(x, y, draw=0) - x).flatten(1)
    unit = (PGD(net(), 0.3, steps=0, norm=norm)(x, y, draw=0) - x).flatten(1) / 0.3
    torch.testing.assert_close(away, unit * EPS[:, None], atol=1e-6, rtol=0)
    found = PGD(net(), EPS, steps=4, norm=norm, restarts=2)(*batch)
    moved = (found - batch[0]).flatten(1)
    assert bool(((moved.abs().amax(1) if norm == "linf" else moved.norm(dim=1)) <= EPS + 1e-6).all())


def test_the_best_point_of_the_path(batch):
    x, y = batch
    model = net()
    options = {"eps": 0.3, "step_size": 0.2, "random_start": False, "engine": "eager"}
    for targets in (None, (y + 1) % 5):
        path = [PGD(model, steps=steps, **options)(x, y, targets) for steps in range(7)]
        attack = PGD(model, steps=6, keep="best", **options)
        found = attack(x, y, targets)
        with torch.no_grad():
            for i in range(len(x)):
                logits = torch.cat([model(images[i : i + 1]) for images in path])
                wanted = y[i] if targets is None else targets[i]
                success = (logits.argmax(1) == wanted) == (targets is not None)
                losses = F.cross_entropy(logits, wanted.expand(7), reduction="none")
                losses = losses if targets is None else -losses
                place = int(success.int().argmax()) if bool(success.any()) else int(losses.argmax())
                torch.testing.assert_close(found[i], path[place][i], atol=1e-6, rtol=0)
        assert bool((attack.succeeds(found, y, targets) >= attack.succeeds(path[-1], y, targets)).all())
        torch.testing.assert_close(
            PGD(model, steps=6, keep="best", **options | {"engine": "auto"})(x, y, targets), found
        )


def test_success_is_counted_in_eval_mode_and_leaves_no_trace(batch):
    x, y = batch
    model = net().train()
    before = [buffer.clone() for buffer in model.buffers()]
    mask = PGD(model).succeeds(x, y)
    assert mask.dtype == torch.bool
    assert torch.equal(mask, net()(x).argmax(1) != y)
    assert torch.equal(PGD(model).succeeds(x, y, y), ~mask)
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PGD(net(), EPS[:5])(X, Y), r"eps must be a number, or \[N\] = \[6\]"),
        (lambda: PGD(net(), 0.1, EPS[:5])(X, Y), "step_size must be a number"),
        (lambda: PGD(net(), -EPS), "eps must hold finite numbers >= 0"),
        (lambda: PGD(net(), EPS * torch.nan), "eps must hold finite numbers >= 0"),
        (lambda: PGD(net(), EPS[:, None]), r"eps must be a number, or a tensor \[N\] .* got \[6, 1\]"),
        (lambda: APGD(net(), EPS), "eps: APGD takes one number, PGD and FGSM take one for each image"),
        (lambda: PGD(net(), keep="first"), "keep must be one of 'last', 'best', got 'first'"),
    ],
)  # fmt: skip
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_of_a_parallel_model_the_module_inside_is_attacked(batch, tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        model = net().train()
        wrapped = DistributedDataParallel(model)
        wrapped.forward = None  # any pass through it, and so any communication of it, is an error
        assert PGD(wrapped).model is PGD(DataParallel(model)).model is model
        expected = PGD(model, steps=3, engine="eager")(*batch, draw=0)
        torch.testing.assert_close(PGD(wrapped, steps=3)(*batch, draw=0), expected)
        assert wrapped.training
        assert model.training
    finally:
        distributed.destroy_process_group()


def test_a_host_that_counts_sees_every_pass_of_the_eager_engine(batch):
    class Counted(nn.Module):
        calls = 0

        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, x):
            Counted.calls += 1
            return self.net(x)

    PGD(Counted(), steps=10, engine="eager")(*batch)
    assert Counted.calls == 10
    PGD(Counted(), steps=10, engine="eager", keep="best")(*batch)
    assert Counted.calls == 21
