"""``optim.compile``: the same update through torch.compile, seen by nobody but the training pass."""

import copy
import dataclasses

import pytest
import torch

from bat_fast import Batch, models
from bat_fast.attacks import PGD
from bat_fast.attacks.engine.freeze import freezer_of
from bat_fast.config import AttackConfig, OptimConfig, TrainConfig
from bat_fast.config.limits import check
from bat_fast.methods import create
from bat_fast.runs.model_file import load_run
from bat_fast.train import Trainer
from bat_fast.train.build import build_average, dry_run
from bat_fast.train.learner import Compiled
from bat_fast.train.meter import EpochMeter
from bat_fast.train.step import TrainStep


@pytest.fixture
def traced(monkeypatch):
    """torch.compile without its compiler, which takes half a minute: the graphs run as they are.

    Holds what was compiled.
    """
    compiled, original = [], torch.compile

    def compile(what, *, dynamic=None, **_):
        compiled.append(what)
        return original(what, dynamic=dynamic, backend="eager")

    monkeypatch.setattr(torch, "compile", compile)
    return compiled


def train(model, method, batches, **optim):
    """An update for each of ``batches``; the losses, and the average of the weights."""
    settings = OptimConfig(**optim)
    attack = PGD(model, eps=0.1, steps=2, seed=7)
    step = TrainStep(
        model.train(), create(method), attack, torch.optim.SGD(model.parameters(), 0.05, 0.9),
        AttackConfig(), settings,
    )  # fmt: skip
    average = build_average(settings, model)
    losses = []
    for x, y in batches:
        losses.append(step(Batch(x, y, torch.arange(len(y))), 0, EpochMeter("cpu")).total)
        if average is not None:
            average.update_parameters(model)
    return torch.stack(losses), average


HOW = (
    ("bat", {"average": "ema", "awp": 0.05}),
    ("trades", {"precision": "bf16"}),
    ("pgd_at", {"micro_batches": 2, "average": "swa"}),
    ("free", {"clip": 0.5}),
)


def check_the_same_update(method, optim):
    torch.manual_seed(0)
    model = models.create("small_cnn", num_classes=5, in_channels=1, image_size=8)
    batches = [(torch.rand(n, 1, 8, 8), torch.arange(n) % 5) for n in (12, 7)]  # the last one is smaller
    twin = copy.deepcopy(model)
    (losses, average), (ours, our_average) = (
        train(net, method, batches, **optim, compile=on) for net, on in ((model, False), (twin, True))
    )
    rough = {"rtol": 3e-2, "atol": 3e-2} if "precision" in optim else {"rtol": 1e-3, "atol": 1e-4}
    torch.testing.assert_close(ours, losses, **rough)
    for plain, compiled in ((model, twin), (average, our_average)):
        if plain is not None:
            assert list(compiled.state_dict()) == list(plain.state_dict())
            torch.testing.assert_close(compiled.state_dict(), plain.state_dict(), **rough)
    assert not any(name.startswith("_orig_mod") for name in twin.state_dict())
    return twin


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "optim"), [HOW[0], *(pytest.param(*how, marks=pytest.mark.whole) for how in HOW[1:])], ids=str
)
def test_weights_statistics_and_averages_are_those_without(method, optim, traced):
    twin = check_the_same_update(method, optim)
    assert traced[-1] is twin
    if method != "free":  # the attack has met the model itself, and frozen it
        assert freezer_of(twin)._programs


@pytest.mark.whole
@pytest.mark.slow
def test_with_the_compiler_of_torch():
    """A minute, of which nearly all is the compiler."""
    check_the_same_update(*HOW[0])


def with_compile(config, on=True):
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, compile=on))


@pytest.mark.slow
def test_a_run_goes_on_and_is_judged_without_it(small, tmp_path, traced):
    run = Trainer(with_compile(small(epochs=1)), tmp_path / "run", progress=False)
    run.fit()
    assert isinstance(run.step._network, Compiled)
    assert len(traced) == 2  # a small function first
    for on in (False, True):  # it takes no other names of weights than those of the model
        again = Trainer(with_compile(small(epochs=1), on), tmp_path / "run", resume=True, progress=False)
        assert all(map(torch.equal, again.model.state_dict().values(), run.model.state_dict().values()))
    assert len(traced) == 4
    model, _ = load_run(tmp_path / "run")
    assert list(model.state_dict()) == list(run.model.state_dict())


def test_without_a_compiler_nothing_begins(small, tmp_path, monkeypatch):
    def compile(*_, **__):
        raise RuntimeError("torch.compile is not supported on Python 3.99+\nand more")

    monkeypatch.setattr(torch, "compile", compile)
    message = r"^optim\.compile: torch\.compile does not work here \(torch.* Python 3\.99\+\); .*leave optim"
    with pytest.raises(ValueError, match=message):
        dry_run(with_compile(small()))
    with pytest.raises(ValueError, match=message):
        Trainer(with_compile(small()), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("other", ["sync_bn", "grad_checkpointing"])
def test_what_does_not_go_with_it(other):
    with pytest.raises(ValueError, match=rf"optim\.compile does not go with optim\.{other}"):
        check(TrainConfig(optim=OptimConfig(compile=True, **{other: True})))
