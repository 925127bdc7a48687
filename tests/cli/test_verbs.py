"""The command line: what it prints, and how it fails."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

import bat_fast
from bat_fast.cli import main

TINY = [
    "train", "--recipe", "digits-bat", "--epochs", "2", "--attack.steps", "1", "--batch_size", "256",
    "--eval.val_steps", "1", "--eval.test_steps", "2", "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main([*TINY, "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_train_says_what_it_does(run, capsys):
    assert main(["train", "--resume", "--out", str(run)]) == 0  # nothing left to train: the end again
    out = capsys.readouterr().out
    for text in ("PGD-2", "clean", "best epoch", str(run), "curves.png"):
        assert text in out


def test_eval(run, capsys):
    assert main(["eval", str(run), "--steps", "2", "--device", "cpu", "--json"]) == 0
    evaluation = json.loads(capsys.readouterr().out)
    stored = json.loads((run / "results.json").read_text())["metrics"]
    assert evaluation["metrics"] == {name: stored[name] for name in ("test/clean_acc", "test/pgd2_acc")}
    assert main(["eval", str(run), "--steps", "1", "--eps", "8/255", "--split", "val"]) == 0
    assert "PGD-1" in capsys.readouterr().out


def test_info(capsys):
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bat_fast"] == bat_fast.__version__
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert "operator" in out
    assert "dali" in out


def test_print_config_is_a_config(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["train", "--recipe", "digits-bat", "--attack.eps", "8/255", "--print_config"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert "eps: 8/255" in text
    for key in ("recipe", "\nout:", "resume"):
        assert key not in text
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(SystemExit):
        main(["train", "--config", str(path), "--print_config"])
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["eval", "--help"], ["info", "--help"]])
def test_help(words, capsys):
    with suppress(SystemExit):
        assert main(words) == 0
    assert "usage: bat-fast" in capsys.readouterr().out


BAD = {
    "no verb": (["trian"], "no verb 'trian'"),
    "unknown recipe": (["train", "--recipe", "digits-bt"], "did you mean digits-bat?"),
    "recipe without name": (["train", "--recipe"], "--recipe: expected one argument"),
    "unknown option": (["train", "--attack.esp", "3"], "attack.esp"),
    "not a fraction": (["train", "--attack.eps", "8/0"], "8/0"),
    "not a number": (["train", "--epochs", "many"], "epochs"),
    "no such file": (["train", "--config", "nowhere.yaml"], "nowhere.yaml"),
    "unknown method": (["train", "--recipe", "digits-bat", "--method.name", "bta"], "bta"),
    "unknown method option": (["train", "--recipe", "digits-bat", "--method.alhpa", "1"], "alhpa"),
    "unknown data": (["train", "--data.name", "digit"], "digit"),
    "out of range": (["train", "--recipe", "digits-bat", "--attack.eps", "-1"], "eps"),
    "recipe in capitals": (["train", "--recipe", "DIGITS-BT"], "did you mean digits-bat? `bat-fast recipes`"),
    "unknown setting": (["train", "--attack.stepz", "3"], "did you mean --attack.steps?"),
    "without its group": (["train", "--momentum", "0"], "did you mean --optim.momentum?"),
    "unknown option of the run": (["train", "--recpe", "x"], "did you mean --recipe?"),
    "abbreviation": (["train", "--epoch", "2"], "did you mean --epochs?"),
    "no value": (["train", "--epochs", "--seed", "2"], "--epochs: expected one argument"),
    "a truth": (["train", "--data.augment.flip"], "flip: expected one argument: true or false"),
    "a list": (
        ["train", "--optim.milestones"],
        "expected one argument: a list of numbers such as [0.5, 0.75]",
    ),
    "a seed and seeds": (
        ["train", "--seed", "3", "--seeds", "0", "1"],
        "--seed 3 means nothing beside --seeds",
    ),
    "two speeds": (
        ["train", "--fast", "--speed", "published"],
        "--fast is --speed fast, and --speed published",
    ),
    "no option": (["train", "digits-bat"], "settings are written --NAME VALUE"),
    "misspelt verb": (["trian"], "did you mean train?"),
    "misspelt method": (["train", "--method", "trade"], "did you mean trades?"),
    "misspelt data": (["train", "--data", "cifar-11"], "did you mean cifar10?"),
    "misspelt model": (["train", "--model", "preactresnet20"], "did you mean preactresnet"),
    "model of timm": (["train", "--model", "resnet18"], "did you mean timm:resnet18?"),
    "misspelt activation": (["train", "--model.activation", "sofplus"], "did you mean softplus?"),
    "misspelt word": (["train", "--data.loader", "dalli"], "did you mean dali?"),
    "misspelt choice": (["eval", "nowhere", "--split", "tst"], "did you mean test?"),
    "misspelt option": (["eval", "nowhere", "--spilt", "test"], "did you mean --split?"),
    "misspelt bench": (["bench", "--secnds", "2"], "did you mean --seconds?"),
    "misspelt data set": (["prepare", "tiny_imgnet", "."], "did you mean tiny-imagenet?"),
    "misspelt help": (["help", "optim.milestnes"], "did you mean optim.milestones?"),
    "a word, not a union": (
        ["train", "--optim.precision", "fp8"],
        "optim.precision must be one of fp32, bf16, null, got 'fp8'",
    ),
    "negative fraction": (
        ["train", "--attack.eps", "-1/255"],
        "attack.eps must be in [0, 1] for linf, got -1/255",
    ),
    "negative eval": (["eval", "nowhere", "--eps", "-1/255"], "nowhere"),
    "other device": (["train", "--recipe", "digits-bat", "--device", "mps"], "this machine has cpu"),
    "a number for a method": (["train", "--method", "3"], "method must be names with values"),
    "print what": (["train", "--print_config=colours"], "skip_default"),
    "resume without folder": (["train", "--resume"], "--out"),
    "nothing to resume": (["train", "--resume", "--out", "nowhere"], "no run to resume"),
    "no device": (["train", "--recipe", "digits-bat", "--device", "cuda:99"], "cuda:99"),
    "no run": (["eval", "nowhere"], "nowhere"),
    "no run given": (["eval"], "run"),
    "bad split": (["eval", "nowhere", "--split", "tset"], "tset"),
    "of AutoAttack alone": (["eval", "nowhere", "--mode", "quick"], "only --attack aa takes it"),
    "steps of AutoAttack": (["eval", "nowhere", "--attack", "aa", "--steps", "5"], "own number of steps"),
    "bad eval option": (["eval", "nowhere", "--bogus", "1"], "--bogus"),
    "bad info option": (["info", "--jsno"], "--jsno"),
}


@pytest.mark.parametrize(("words", "text"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_and_status_2(words, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("bat-fast: error: ")
    assert text in captured.err
    assert list(tmp_path.iterdir()) == []


def test_refuses_to_overwrite(run, capsys):
    assert main([*TINY, "--out", str(run)]) == 2
    assert "--resume" in capsys.readouterr().err


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="no verb"):
        main(["trian", "--debug"])


def test_failure_is_status_1(monkeypatch, capsys):
    def fail():
        raise RuntimeError("the disk\nis on fire")

    monkeypatch.setattr("bat_fast.report.info.collect_info", fail)
    assert main(["info"]) == 1
    assert capsys.readouterr().err == "bat-fast: error: RuntimeError: the disk is on fire\n"


@pytest.mark.parametrize("package", ["yaml", "matplotlib", "rich"])
def test_a_missing_package_is_one_line(package, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    for module in [name for name in sys.modules if name.startswith("bat_fast.cli.s")]:
        monkeypatch.delitem(sys.modules, module)
    assert main(TINY) == 1
    captured = capsys.readouterr()
    name = "pyyaml" if package == "yaml" else package
    assert captured.err.startswith(f"bat-fast: error: {package} is not installed: pip install {name}")
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["recipes"], ["--help"], ["train", "--help"]], ids=" ".join)
def test_a_reader_that_leaves_is_no_error(words):
    command = [sys.executable, "-m", "bat_fast", *words]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    child.stdout.close()
    assert child.wait(60) == 141
    assert child.stderr.read() == b""


def test_a_pipe_that_breaks_elsewhere_is_one(monkeypatch, capsys):
    def fail():
        raise BrokenPipeError(32, "a worker is gone")

    monkeypatch.setattr("bat_fast.report.info.collect_info", fail)
    assert main(["info"]) == 2
    assert capsys.readouterr().err == "bat-fast: error: [Errno 32] a worker is gone\n"


@pytest.mark.slow
def test_ctrl_c_says_how_to_continue(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "bat_fast", *TINY, "--epochs", "1000", "--out", str(out)]
    child = subprocess.Popen(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )
    while not (out / "checkpoints" / "last.pt").exists():
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, error = child.communicate(timeout=60)
    assert child.returncode == 130
    assert error.count("\n") == 1
    assert f"continue with: bat-fast train --resume --out {out}" in error
