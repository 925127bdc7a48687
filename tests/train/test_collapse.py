"""The alarm for catastrophic overfitting."""

import pytest
import torch
from torch import nn

from bat_fast import PGD
from bat_fast.batch import Batch
from bat_fast.config import AttackConfig, EvalConfig, OptimConfig, Ratio
from bat_fast.evaluate.attacks import make_attack
from bat_fast.train import Trainer
from bat_fast.train.alarms import CollapseAlarm

pytestmark = pytest.mark.slow

ONE_STEP = {"name": "fgsm_rs"}


def batch(count=64):
    return Batch(
        torch.full((count, 1, 2, 2), 0.5), torch.zeros(count, dtype=torch.int64), torch.arange(count)
    )


def measured(model, steps=10):
    alarm = CollapseAlarm(batch())
    attack = PGD(model, eps=0.15, step_size=0.03, steps=steps, random_start=False)
    return alarm, alarm.measure(model, attack, make_attack("fgsm", model, eps=0.15))


def test_a_model_that_only_withstands_one_step_raises_the_alarm():
    class OneStep(nn.Module):
        """Correct at a distance of 0.15, wrong at 0.06."""

        def forward(self, x):
            z = (x - 0.5).flatten(1).mean(1)
            margin = 1 - z - 3 * (1 - ((z - 0.06) / 0.03).abs()).clamp(min=0)
            return torch.stack([margin, torch.zeros_like(margin)], 1)

    alarm, metrics = measured(OneStep(), steps=2)
    assert metrics == {"val/fgsm_acc": 1.0, "val/collapsed": 1.0}
    assert alarm.raised


def test_models_without_that_gap_do_not():
    for answer in (1.0, -1.0):  # robust, and hopeless

        class Constant(nn.Module):
            def forward(self, x, answer=answer):
                flat = x.flatten(1).sum(1, keepdim=True)
                return torch.cat([answer + 0 * flat, 0 * flat], 1)

        alarm, metrics = measured(Constant())
        assert metrics["val/collapsed"] == 0.0
        assert not alarm.raised


def run(small, out, what, **changes):
    config = small(
        method=ONE_STEP,
        epochs=4,
        attack=AttackConfig(eps=Ratio("0.1")),
        eval=EvalConfig(val_steps=2, test_steps=2, on_collapse=what),
        **changes,
    )
    return Trainer(config, out, progress=False)


def collapse_in(trainer, epoch):
    """A stub: the alarm is raised in that epoch (from 1)."""

    def measure(*_):
        trainer.alarm.raised = trainer.epoch + 1 == epoch
        return {"val/fgsm_acc": 0.9, "val/collapsed": float(trainer.alarm.raised)}

    trainer.alarm.measure = measure


@pytest.mark.parametrize(("what", "epochs"), [("warn", 4), ("stop", 3), ("restore", 4)])
def test_what_happens_then(small, tmp_path, capsys, what, epochs):
    trainer = run(small, tmp_path / "run", what)
    collapse_in(trainer, 3)
    trainer.fit()
    rows = trainer.folder.rows()
    assert [row["val/collapsed"] for row in rows] == [0, 0, 1, 0][:epochs]
    lines = [line for line in capsys.readouterr().out.splitlines() if "WARNING" in line]
    assert len(lines) == 1
    assert "catastrophic overfitting in epoch 3" in lines[0]
    assert ("stopped" in lines[0]) == (what == "stop")
    assert ("went back to the weights of epoch" in lines[0]) == (what == "restore")
    if what == "stop":  # a stopped run stays stopped
        resumed = Trainer(trainer.config, tmp_path / "run", resume=True, progress=False)
        resumed.fit()
        assert len(resumed.folder.rows()) == 3


def test_only_single_step_training_is_watched(small, tmp_path):
    assert run(small, tmp_path / "one", "warn").alarm is not None
    assert Trainer(small(), tmp_path / "many", progress=False).alarm is None


def test_a_real_collapse_is_seen(small, tmp_path, capsys):
    """FGSM from the image itself with a large radius: the textbook case of Wong et al. 2020."""
    config = small(
        method={"name": "pgd_at"},
        epochs=12,
        batch_size=64,
        attack=AttackConfig(
            eps=Ratio("0.3"), step_size=Ratio("0.3"), steps=1, random_start=False, bn_mode="train"
        ),
        optim=OptimConfig(lr=0.1, schedule="constant"),
        eval=EvalConfig(val_steps=10, test_steps=1, every=12, step_size=Ratio("0.075"), on_collapse="stop"),
    )
    trainer = Trainer(config, tmp_path / "run", progress=False)
    trainer.fit()
    assert trainer.stopped
    row = trainer.folder.rows()[-1]
    assert row["val/fgsm_acc"] - row["val/pgd10_acc"] >= 0.15
    assert "WARNING: catastrophic overfitting" in capsys.readouterr().out
