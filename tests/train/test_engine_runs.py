"""A whole training run with each engine and precision ends where the plain loop ends."""

from dataclasses import replace

import pytest

from bat_fast.config import AttackConfig, EvalConfig, OptimConfig, Ratio, TrainConfig
from bat_fast.train import Trainer

# 359 test images: a difference of 5 points is two standard deviations of chance.
CHANCE = 0.06


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run(tmp_path_factory.mktemp("plain"), "eager", None, None)


def run(folder, engine, precision, learning):
    attack = AttackConfig(eps=Ratio("0.15"), steps=5, engine=engine, precision=precision)
    config = TrainConfig(epochs=12, device="cpu", method={"name": "bat"}, attack=attack)
    optim = replace(OptimConfig(), schedule="cyclic", precision=learning)
    config = replace(config, optim=optim, eval=EvalConfig(every=12, val_steps=5, test_steps=10))
    return Trainer(config, folder / "run", progress=False).fit()["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "precision", "learning"),
    [("frozen", None, None), ("frozen", "bf16", None), ("frozen", "bf16", "bf16")],
)
def test_training_ends_alike(engine, precision, learning, plain, tmp_path):
    ours = run(tmp_path, engine, precision, learning)
    for name in ("test/clean_acc", "test/pgd10_acc"):
        assert abs(ours[name] - plain[name]) < CHANCE, (name, ours[name], plain[name])
    assert plain["test/pgd10_acc"] > 0.5
