"""A step that ends in NaN is kept with its batch, and a replay says where in it the NaN begins."""

import dataclasses

import pytest
import torch

from bat_fast import cli
from bat_fast.train import Observer, Trainer
from bat_fast.train.replay import replay


def broken_in_step(trainer, number, value=torch.nan):
    """Put ``value`` into a weight of a run before its step ``number``, counted from 0."""
    step, seen = trainer.step, []
    update = type(step).__call__

    class Broken(type(step)):
        def __call__(self, batch, *rest, **options):
            seen.append(batch)
            if len(seen) == number + 1:
                next(self.model.parameters()).data.view(-1)[0] = value
            return update(self, batch, *rest, **options)

    step.__class__ = Broken
    return seen


@pytest.mark.parametrize("value", [torch.nan, 3e38])
def test_the_first_value_is_named(value, small, tmp_path, capsys):
    config = small(epochs=1, optim=dataclasses.replace(small().optim, clip=1.0))
    trainer = Trainer(config, tmp_path / "run", progress=False)
    seen = broken_in_step(trainer, 2, value)
    with pytest.raises(FloatingPointError, match=r"its batch is kept: bat-fast replay .*run; none was saved"):
        trainer.fit()
    found = replay(trainer.folder, trainer.config)
    assert (found.step, found.epoch, found.exact) == (2, 0, True)
    assert found.ids == seen[2].index.tolist()
    name = next(iter(dict(trainer.model.named_parameters())))
    assert found.first.what.startswith("output: " if value == 3e38 else f"weights: {name}")
    bad = {look.what.partition(":")[0] for look in found.looks if look.bad}
    assert {"output", "gradient"} <= bad
    capsys.readouterr()
    assert cli.main(["replay", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"step 3, epoch 1: {len(found.ids)} images")
    assert said.splitlines()[-1].startswith(f"first: {found.first.what} ({found.first.bad:,} of ")


def test_a_run_without_such_a_step_says_so(small, tmp_path, capsys):
    trainer = Trainer(small(epochs=1), tmp_path / "run", progress=False)
    assert cli.main(["replay", str(tmp_path / "run")]) == 2
    assert "no step of this run has met a NaN" in capsys.readouterr().err
    trainer.folder.lock.end()


def test_the_health_of_the_updates_is_in_the_metrics(small, tmp_path):
    config = small(epochs=1, optim=dataclasses.replace(small().optim, clip=1e-9))
    trainer = Trainer(config, tmp_path / "run", progress=False)
    trainer.fit()
    (row,) = trainer.rows
    assert row["train/clipped"] == 1.0
    assert row["train/zero_grad"] == 0.0
    assert 0 < row["train/saturated"] < 1


def test_restore_goes_to_the_same_weights_after_an_interruption(small, tmp_path):
    """A checkpoint by a signal lies wherever it came; what is restored does not."""
    config = small(epochs=2, optim=dataclasses.replace(small().optim, on_nonfinite="restore"))

    def run(out, stop, resume=False, broken=None):
        trainer = Trainer(config, out, progress=False, resume=resume)
        if broken is not None:
            broken_in_step(trainer, broken)
        steps = []

        class Watch(Observer):
            def step(self, *_):
                steps.append(1)
                if len(steps) == stop:
                    import os
                    import signal

                    os.kill(os.getpid(), signal.SIGTERM)

        trainer.observers = (Watch(),)
        try:
            trainer.fit()
        except KeyboardInterrupt:
            assert stop
        return trainer

    steps = len(Trainer(config, tmp_path / "count", progress=False).loader)
    whole = run(tmp_path / "whole", None, broken=steps + 2)
    run(tmp_path / "cut", steps + 2)  # between the end of epoch 1 and the broken step
    cut = run(tmp_path / "cut", None, resume=True, broken=0)
    assert [row["train/left_out"] for row in (whole.rows[1], cut.rows[1])] == [1, 1]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, cut.model.state_dict()[name]), name
