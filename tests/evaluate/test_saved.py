import pytest
import torch
from safetensors.torch import save_file

from bat_fast.config import AttackConfig, EvalConfig, Ratio, TrainConfig
from bat_fast.evaluate import load_run
from bat_fast.evaluate.saved import evaluate_saved
from bat_fast.train import Trainer


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    config = TrainConfig(
        epochs=2,
        device="cpu",
        method={"name": "pgd_at"},
        attack=AttackConfig(eps=Ratio("1/10"), steps=1),
        eval=EvalConfig(val_steps=1, test_steps=2),
    )
    return out, Trainer(config, out, progress=False).fit()


def test_repeats_the_numbers_of_the_run(run):
    out, results = run
    for path in (out, str(out), out / "model.safetensors"):
        evaluation = evaluate_saved(path, steps=2, device="cpu", batch_size=100)
        for name in ("test/clean_acc", "test/pgd2_acc"):
            assert evaluation["metrics"][name] == results["metrics"][name]
        assert evaluation["n_examples"] == 359
    validation = evaluate_saved(out, split="val", steps=1, device="cpu")["metrics"]
    assert validation["val/pgd1_acc"] == results["metrics"]["val/pgd1_acc"]


def test_another_radius(run):
    out, results = run
    stronger = evaluate_saved(out, steps=2, eps=Ratio("1/5"), device="cpu")
    assert stronger["attack"] == {"norm": "linf", "eps": 0.2, "step_size": pytest.approx(0.05), "steps": 2}
    assert stronger["metrics"]["test/pgd2_acc"] < results["metrics"]["test/pgd2_acc"]
    nothing = evaluate_saved(out, steps=2, eps=0, device="cpu")["metrics"]
    assert nothing["test/pgd2_acc"] == nothing["test/clean_acc"]


def test_the_model_is_ready_to_use(run):
    model, described = load_run(run[0])
    assert not model.training
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert described["method"] == {"name": "pgd_at"}


def test_errors(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_run(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="expected a run folder"):
        load_run(tmp_path)
    (tmp_path / "config.yaml").write_text("epochs: 1")
    with pytest.raises(FileNotFoundError, match="has not finished: bat-fast train --resume"):
        load_run(tmp_path)
    whole = (run[0] / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is damaged: it is not as bat_fast wrote it"):
        load_run(tmp_path)
    save_file({"w": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="not written by bat_fast"):
        load_run(tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="split must be one of"):
        evaluate_saved(run[0], split="tset")
    with pytest.raises(ValueError, match="batch_size"):
        evaluate_saved(run[0], batch_size=0)
