"""The attack that validates, and AutoAttack at the end of a run."""

import json

import pytest
import torch

from bat_fast import data
from bat_fast.attacks import APGD, AutoAttack, Square, autoattack
from bat_fast.config import EvalConfig, TrainConfig
from bat_fast.evaluate import load_run
from bat_fast.evaluate.kept import Kept
from bat_fast.train import Trainer
from bat_fast.train.build import check
from bat_fast.train.validation import validation_attack


def test_the_end_of_a_run_has_autoattack(small, tmp_path, monkeypatch):
    """Validated by an upper bound of it, tested by it on some images, evenly spread; more of them later.

    A test that is interrupted goes on with the next attack.
    """
    parts = {"apgd-ce": (APGD, {"steps": 5}), "square": (Square, {"queries": 5})}
    monkeypatch.setitem(autoattack._VERSIONS, "standard", parts)
    how = {"val_steps": 1, "test_steps": 1, "attack": "quick"}
    out = tmp_path / "run"
    asked = small(epochs=1, eval=EvalConfig(**how, autoattack=12))
    put = Kept.put

    def interrupted(self, name, tensors):
        put(self, name, tensors)
        if name.startswith("apgd-ce"):
            raise KeyboardInterrupt

    with monkeypatch.context() as short:
        short.setattr(Kept, "put", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Trainer(asked, out, progress=False).fit()
    assert (out / "checkpoints" / "test").is_dir()
    assert not (out / "results.json").exists()
    with monkeypatch.context() as short:
        short.setattr(APGD, "__call__", lambda *_, **__: pytest.fail("APGD has been done"))
        results = Trainer(asked, out, resume=True, progress=False).fit()
    assert not (out / "checkpoints" / "test").exists()
    row = json.loads((out / "metrics.jsonl").read_text())
    assert results["metrics"]["val/aa_quick_acc"] == row["val/aa_quick_acc"] < row["val/clean_acc"]
    model, _ = load_run(out)
    test = data.load("digits", seed=0).test
    where = torch.linspace(0, len(test) - 1, 12).long()
    verdicts = AutoAttack(model, 0.1).judge(test.images[where], test.labels[where], test.index[where])
    assert results["metrics"]["test/aa_acc"] == sum(verdicts.robust) / 12
    found = results["autoattack"]
    assert found["n_examples"] == 12
    assert found["interval"][0] < sum(verdicts.robust) / 12 < found["interval"][1]
    assert found["broken_by"]["apgd-ce"] == verdicts.broken_by.count("apgd-ce")
    again = small(epochs=1, eval=EvalConfig(**how, autoattack=0))
    assert "autoattack" not in Trainer(again, out, resume=True, progress=False).fit()


def test_the_name_of_the_attack_that_validates():
    def name(**how):
        return validation_attack(EvalConfig(**how))

    assert (name(val_steps=7), name(attack="pgd20x2")) == ("pgd7", "pgd20x2")
    assert name(attack="quick") == name(attack="aa-quick") == "aa_quick"
    with pytest.raises(ValueError, match=r"eval\.attack: there is no attack 'pdg20'.*did you mean pgd"):
        check(TrainConfig(eval=EvalConfig(attack="pdg20")))
