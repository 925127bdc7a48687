import re

import pytest
import torch
from safetensors.torch import save_file

from bat_fast.attacks import APGD, autoattack
from bat_fast.cli import main
from bat_fast.cli.verbs.eval import _parser
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


def test_every_attack_that_the_help_names(run, capsys, monkeypatch):
    monkeypatch.setitem(autoattack._VERSIONS, "standard", {"apgd-ce": (APGD, {"steps": 2})})
    (listed,) = re.findall(r"--attack ATTACK.*?clean, (.*?), \.\.\.", _parser().format_help(), re.DOTALL)
    words = ["clean", *re.sub(r"\([^)]*\)", "", " ".join(listed.split())).replace(" ", "").split(",")]
    assert {"pgd20", "aa"} < set(words)
    ask = ["eval", str(run[0]), "--n", "1", "--eps", "0.01", "--checks", "none", "--device", "cpu"]
    assert main([*ask, "--attack", *words]) == 0
    assert "AutoAttack" in capsys.readouterr().out
    assert not (run[0] / "eval").exists()


@pytest.mark.parametrize("attack", ["clean", ["Clean"]])
def test_without_an_attack(run, attack):
    out, results = run
    found = evaluate_saved(out, attack=attack, device="cpu")["metrics"]
    assert found == {"test/clean_acc": results["metrics"]["test/clean_acc"]}
    both = evaluate_saved(out, attack=["clean", "pgd2"], eps="1/10", device="cpu")["metrics"]
    assert both["test/pgd2_acc"] == results["metrics"]["test/pgd2_acc"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--eps 8", "eps must be in [0, 1] for linf, got 8.0; pixels are in [0, 1]: write 8/255"),
        ("--eps 8 --attack clean", "write 8/255"),
        ("--eps 1/255 8 --attack aa", "write 8/255"),
        ("--norm l2 --eps 128", "eps must be in [0, 32] for l2"),
        ("--step_size 9", "step_size must be in [0, 1] for linf, got 9.0; pixels are in [0, 1]: write 9/255"),
        ("--steps -1", "steps must be at least 0, got -1"),
        ("--loss dlrr", "loss must be one of"),
        ("--loss ce+te", "soft [N, C] is missing"),
        ("--attack pgd2 --mode quick", "--mode: only --attack aa takes it"),
        ("--attack clean --step_size 0.1", "step_size: of the attacks clean none takes it"),
    ],
)
def test_a_refused_evaluation_leaves_nothing(run, words, text, capsys):
    assert main(["eval", str(run[0]), "--device", "cpu", "--n", "4", *words.split()]) == 2
    assert text in capsys.readouterr().err
    assert not (run[0] / "eval").exists()


def test_autoattack_has_one_name(run, tmp_path, capsys):
    found = []
    for name in ("aa", "AutoAttack"):
        words = ["--attack", name, "--mode", "quick", "--n", "2", "--per_sample", str(tmp_path / "a.csv")]
        words += ["--checks", "none"]
        assert main(["eval", str(run[0]), *words, "--device", "cpu", "--json"]) == 0
        found.append(capsys.readouterr().out)
    assert found[0] == found[1]
    assert '"seed": 0' in found[0]  # not that of the training
    assert '"test/aa_quick_acc"' in found[0]


def test_the_table_says_how_pgd_was_changed(run, capsys):
    words = "--steps 3 --loss dlr --restarts 2 --step_size 0.01 --n 4 --checks none --device cpu"
    assert main(["eval", str(run[0]), *words.split()]) == 0
    assert "PGD-3, dlr loss, 2 starts, step 0.01" in capsys.readouterr().out


def test_the_model_is_ready_to_use(run):
    model, described = load_run(run[0])
    assert not model.training
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert described["method"] == {"name": "pgd_at"}


def test_errors(run, tmp_path, capsys):
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
    torch.save({"w": torch.zeros(2)}, tmp_path / "foreign.pt")
    for name in ("foreign.safetensors", "foreign.pt"):
        with pytest.raises(ValueError, match=r"give a run folder.*bat-fast eval takes them, with --model"):
            load_run(tmp_path / name)
        for words in (
            ["predict", str(tmp_path / name), "a.png"],
            ["export", str(tmp_path / name), "--to", "timm"],
        ):
            assert main(words) == 2
            assert "give a run folder" in capsys.readouterr().err
    with pytest.raises(ValueError, match="split must be one of"):
        evaluate_saved(run[0], split="tset")
    with pytest.raises(ValueError, match="batch_size"):
        evaluate_saved(run[0], batch_size=0)
