"""What published code does around its mathematics, as options: off, nothing changes; on, it is done too."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bat_fast import ops
from bat_fast.attacks import PGD
from bat_fast.batch import Batch
from bat_fast.cli.settings import read_command
from bat_fast.config import AttackConfig, OptimConfig
from bat_fast.config.limits import check
from bat_fast.data import Augment, joined, load
from bat_fast.data.augment import jitter
from bat_fast.methods import create
from bat_fast.models import create as create_model
from bat_fast.models.normalize import Normalize
from bat_fast.train import Trainer
from bat_fast.train.meter import EpochMeter
from bat_fast.train.optimizer import build_optimizer, set_rate
from bat_fast.train.schedule import learning_rate, momentum
from bat_fast.train.step import TrainStep


class Counting(nn.Module):
    """A network with batch norm, in float64."""

    num_classes = 3

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.double()

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))


def batch(count: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(count, 1, 6, 6, generator=generator).double()
    x[:, :, 0] = 0.0  # black, where a cut start loses half of its noise
    return Batch(x, torch.arange(count) % 3, torch.arange(count))


def counted(
    method: str = "pgd_at", steps: int = 3, bn_mode: str = "train", **options
) -> tuple[int, Counting]:
    """How many batches batch norm has counted after one update, and the model."""
    how = {name: options.pop(name) for name in list(options) if name == "third_pass"}
    model, method_ = Counting().train(), create(method, **how)
    given = {"eps": 0.1, "steps": steps, "bn_mode": bn_mode} | options
    attack = PGD(model, **(given | method_.attack_options(given)))
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    step = TrainStep(model, method_, attack, sgd, AttackConfig(), OptimConfig())
    step(batch(), 0, EpochMeter("cpu"))
    return int(model.norm.num_batches_tracked), model


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({}, 1),
        ({"bn_updates": True}, 1 + 3),
        ({"bn_updates": "all"}, 1 + 3 + 2),  # robust_overfitting: 10 steps are counted 13 times
        ({"method": "fgsm_rs", "bn_updates": True}, 2),
        ({"method": "n_fgsm", "bn_updates": True}, 2),
        ({"method": "trades", "bn_mode": "eval"}, 2),
        ({"method": "trades", "bn_mode": "eval", "third_pass": True}, 3),
    ],
)
def test_what_the_running_statistics_count(options, passes):
    assert counted(**options)[0] == passes


def test_counting_moves_the_statistics_and_not_the_weights():
    (_, plain), (_, every) = counted(), counted(bn_updates="all")
    assert torch.allclose(plain.conv.weight, every.conv.weight, rtol=1e-12)
    assert not torch.allclose(plain.norm.running_mean, every.norm.running_mean)


def test_the_statistics_are_those_of_a_loop_by_hand():
    _, model = counted(steps=1, bn_updates=True, random_start=False, step_size=0.05)
    by_hand, data = Counting().train(), batch()
    x = data.x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(by_hand(x), data.y), x)
    by_hand((data.x + 0.05 * grad.sign()).clamp(0, 1))
    assert torch.allclose(model.norm.running_mean, by_hand.norm.running_mean, rtol=1e-12)
    assert torch.allclose(model.norm.running_var, by_hand.norm.running_var, rtol=1e-12)


def test_the_third_pass_of_trades_changes_statistics_alone():
    (_, two), (_, three) = (counted("trades", bn_mode="eval", third_pass=third) for third in (False, True))
    assert torch.equal(two.conv.weight, three.conv.weight)
    assert not torch.equal(two.norm.running_mean, three.norm.running_mean)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("start", [True, "gaussian"])
def test_a_start_that_is_not_cut(norm, start):
    attack = PGD(Counting().eval(), 0.1, norm=norm, random_start=start, clip_start=False)
    cut = PGD(attack.model, 0.1, norm=norm, random_start=start)
    x, y, index = batch()
    free, usual = (each.start(x, index, 0) for each in (attack, cut))
    assert free.min() < 0 <= usual.min()
    assert torch.equal(free.clamp(0, 1), usual)
    away = (free - x).abs().max() if norm == "linf" else (free - x).flatten(1).norm(dim=1).max()
    assert away <= (0.1 if start is True else 1.0) + 1e-7
    for steps in (0, 1):
        attack.steps = steps
        moved = attack(x, y, index=index, draw=0)
        assert moved.min() >= 0
        assert moved.max() <= 1


def test_momentum_mirrors_the_rate_as_in_torch():
    optim, total = OptimConfig(schedule="cyclic", peak=0.5, momentum_low=0.8, lr=0.2), 40
    sgd = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.2, 0.9)
    theirs = torch.optim.lr_scheduler.CyclicLR(sgd, 0.0, 0.2, total / 2, total / 2, base_momentum=0.8)
    rates, momenta = [], []
    for _ in range(total + 1):
        rates.append(sgd.param_groups[0]["lr"])
        momenta.append(sgd.param_groups[0]["momentum"])
        sgd.step()
        theirs.step()
    for step in range(total):  # ours has the middle of a step, theirs its beginning
        assert learning_rate(optim, step, total) == pytest.approx((rates[step] + rates[step + 1]) / 2)
        assert momentum(optim, step, total) == pytest.approx((momenta[step] + momenta[step + 1]) / 2)


def test_the_optimiser_gets_rate_and_momentum():
    optim = OptimConfig(schedule="cyclic", momentum_low=0.8)
    sgd = build_optimizer(optim, nn.Linear(2, 2))
    assert set_rate(sgd, optim, 40, 101) == sgd.param_groups[0]["lr"] > 0.09
    assert sgd.param_groups[0]["momentum"] == pytest.approx(0.8, abs=2e-3)
    set_rate(sgd, OptimConfig(), 0, 10)
    assert OptimConfig().peak == 0.4


@pytest.mark.parametrize(
    ("alpha", "r", "as_if"),
    [(0, 0.2, (1e-6, 0.2)), (0.1, 0, (0.1, 0.001)), (0, 0, (1e-6, 0)), (0.1, 0.2, (0.1, 0.2))],
)
def test_the_floors_of_holistic_training(alpha, r, as_if):
    model, data = Counting().eval(), batch()
    how = create("holistic", alpha=alpha, r=r, floors=True)
    losses = F.cross_entropy(model(data.x), data.y, reduction="none")
    wanted = ops.holistic_loss(losses, alpha=as_if[0], r=as_if[1], form="hd")
    assert how(model, data, data.x, 0).total == wanted
    if (alpha, r) != as_if:
        assert create("holistic", alpha=alpha, r=r)(model, data, data.x, 0).total != wanted


def test_jitter_is_what_it_says():
    x, ids = torch.rand(6, 3, 5, 5), torch.arange(6)
    kept = x.clone()
    moved = jitter(x.clone(), ids, 0.4, seed=1, epoch=2)
    assert not torch.equal(moved, kept)
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert torch.equal(moved[3:4], jitter(kept[3:4].clone(), ids[3:4], 0.4, seed=1, epoch=2))
    assert not torch.equal(moved, jitter(kept.clone(), ids, 0.4, seed=1, epoch=3))
    assert torch.equal(jitter(kept.clone(), ids, 0.0, seed=1, epoch=2), kept)
    grey = torch.full((1, 3, 4, 4), 0.5)  # neither contrast nor saturation changes it
    factor = jitter(grey.clone(), torch.tensor([7]), 0.4, seed=1, epoch=2) / 0.5
    assert factor.std() < 1e-6
    assert 0.6 <= factor.mean() <= 1.4
    assert Augment(jitter=0.4).any
    with pytest.raises(ValueError, match=r"jitter must be in \[0, 1\]"):
        Augment(jitter=1.5)


def test_raw_shortcuts_convolve_the_input():
    raw, usual = (
        create_model(name, num_classes=3).eval() for name in ("preactresnet18_raw", "PreActResNet-18")
    )
    usual.load_state_dict(raw.state_dict())
    x = torch.rand(2, 3, 8, 8)
    assert not torch.allclose(raw(x), usual(x))
    block, maps = raw.blocks[2], torch.randn(2, 64, 4, 4)
    active = block.enter(maps)
    assert torch.allclose(block(maps), block.body(active) + F.conv2d(maps, block.shortcut.weight, stride=2))
    with pytest.raises(ValueError, match="depth 18 or 34"):
        create_model("preactresnet50_raw", num_classes=3)


def test_the_network_of_mart_and_te():
    model = create_model("postactresnet18", num_classes=10)
    assert sum(weight.numel() for weight in model.parameters()) == 11_173_962  # as the published class
    block, maps = model.blocks[2].eval(), torch.randn(2, 64, 4, 4)
    assert torch.equal(block(maps), F.relu(block.body(maps) + block.shortcut(maps)))
    logits, features = model.eval()(torch.rand(2, 3, 32, 32), return_features=True)
    assert torch.equal(logits, model.head(features))


def run(tmp_path, *words):
    words = ["--recipe", "digits-bat", "--epochs", "2", "--batch_size", "256", "--attack.steps", "1", *words]
    return Trainer(read_command([*words, "--device", "cpu"]).config, tmp_path / "run", progress=False)


def test_pixels_as_they_are(tmp_path):
    def layer(*words):
        (found,) = (m for m in run(tmp_path / str(words), *words).model.modules() if isinstance(m, Normalize))
        return found

    plain, usual = layer("--model.normalize", "none"), layer()
    assert torch.equal(plain(x := torch.rand(2, 1, 8, 8)), x)
    assert usual.std.item() != 1


def test_parts_join():
    train, val, _ = load("digits", seed=0)
    whole = joined(train, val)
    assert len(whole) == len(train) + len(val)
    assert torch.equal(whole.images[whole.stored(torch.tensor([len(train)]))], val.images[:1])
    assert torch.equal(whole.index, torch.cat([train.index, val.index]))
    again = joined(whole.part(torch.arange(5)), whole.part(torch.arange(7, 9)))  # of one store
    assert again.images is whole.images
    assert torch.equal(again.labels, whole.labels[[0, 1, 2, 3, 4, 7, 8]])


@pytest.mark.parametrize("choose", ["val", "last", "test"])
def test_a_run_without_validation_says_so(tmp_path, choose):
    trainer = run(tmp_path, "--eval.choose", choose, "--eval.test_steps", "2", "--eval.val_steps", "1")
    results = trainer.fit()
    assert json.loads((tmp_path / "run" / "results.json").read_text())["chosen"] == results["chosen"]
    if choose == "val":
        assert results["chosen"] == "best on the validation split"
        assert results["n_examples"] == {"train": 1258, "val": 180, "test": 359}
        return
    assert "without a validation split" in results["chosen"]
    assert results["n_examples"] == {"train": 1438, "val": 0, "test": 359}
    assert not [name for name in results["metrics"] if name.startswith("val/")]
    assert {"test/clean_acc", "test/pgd1_acc", "test/pgd2_acc"} <= set(results["metrics"])
    if choose == "last":
        assert results["epoch"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attack.bn_updates", "true"], "set attack.bn_mode train"),
        (
            ["--attack.bn_updates", "all", "--attack.bn_mode", "train", "--attack.engine", "graph"],
            "auto or eager",
        ),
        (["--optim.momentum_low", "0.8", "--optim.schedule", "cosine"], "optim.schedule cyclic"),
        (
            ["--optim.momentum_low", "0.95", "--optim.schedule", "cyclic"],
            "at most optim.momentum = 0.9, got 0.95",
        ),
        (["--optim.peak", "1"], r"optim.peak must be in \(0, 1\)"),
        (["--data.augment.jitter", "2"], r"data.augment.jitter must be in \[0, 1\]"),
        (["--model.normalize", "none", "--model.pretrained", "true"], "model.normalize none"),
        (["--eval.choose", "last", "--data.label_noise.rate", "0.1"], "use eval.choose val"),
        (["--eval.choose", "last", "--eval.patience", "3"], "eval.patience does not go with it"),
    ],
)
def test_what_does_not_go_together(words, message):
    with pytest.raises(ValueError, match=message):
        check(read_command(["--recipe", "digits-bat", *words]).config)


def test_an_attack_says_the_same():
    with pytest.raises(ValueError, match="set bn_mode train"):
        PGD(Counting(), bn_updates=True)
    with pytest.raises(ValueError, match="engine auto or eager, got 'frozen'"):
        PGD(Counting(), bn_mode="train", bn_updates=True, engine="frozen")
