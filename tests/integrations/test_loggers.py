"""Observers that log to a service, beside stand-ins for its package: nothing is sent."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from bat_fast.cli import main
from bat_fast.cli.settings import read_command
from bat_fast.cli.verbs import train
from bat_fast.integrations.mlflow import MLflow
from bat_fast.integrations.wandb import WandB
from bat_fast.runs.folder import RunFolder
from bat_fast.runs.plain import flat, plain
from bat_fast.train import Trainer


class Client:
    """What is used of ``mlflow.MlflowClient``."""

    made: list = []  # noqa: RUF012

    def __init__(self, uri):
        self.uri, self.params, self.metrics, self.ended, self.experiments = uri, {}, [], [], []
        Client.made.append(self)

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id="7") if name == "known" else None

    def create_experiment(self, name):
        self.experiments.append(name)
        return "8"

    def create_run(self, experiment, run_name):
        return SimpleNamespace(info=SimpleNamespace(run_id=f"{experiment}/{run_name}"))

    def log_param(self, run, name, value):
        assert run == "8/run"
        self.params[name] = value

    def log_metric(self, run, name, value, step):
        self.metrics.append((run, step, name, value))

    def set_terminated(self, run):
        self.ended.append(run)


@pytest.fixture
def hosts(monkeypatch):
    """The stand-ins, and what was logged to wandb."""
    logged: dict = {"init": [], "log": [], "finished": []}
    wandb, mlflow = ModuleType("wandb"), ModuleType("mlflow")
    run = SimpleNamespace(
        log=lambda values, step: logged["log"].append((step, values)),
        finish=lambda: logged["finished"].append(len(logged["log"])),
    )
    wandb.init = lambda **settings: logged["init"].append(settings) or run
    mlflow.MlflowClient = Client
    Client.made = []
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    return logged


@pytest.mark.slow
def test_every_metric_of_every_epoch_is_logged(hosts, small, tmp_path):
    config, out = small(epochs=2), tmp_path / "run"
    observers = [
        WandB(project="robust", name="mine"),
        MLflow("file:x"),
        MLflow(None, "known", run_id="given"),
    ]
    Trainer(config, out, progress=False, observers=observers).fit()
    rows = RunFolder(out).rows()
    values = [{name: value for name, value in row.items() if name != "epoch"} for row in rows]
    assert len(rows) == 2
    (settings,) = hosts["init"]
    assert settings == {"project": "robust", "name": "mine", "dir": str(out), "config": plain(config)}
    assert hosts["log"] == [(1, values[0]), (2, values[1])]
    assert hosts["finished"] == [2]

    new, given = Client.made
    assert (new.uri, new.experiments, observers[1].run_id) == ("file:x", ["bat_fast"], "8/run")
    assert new.params == {name: str(value) for name, value in flat(plain(config)).items()}
    assert (given.params, given.experiments) == ({}, [])
    for client, run in ((new, "8/run"), (given, "given")):
        steps = enumerate(values, 1)
        assert client.metrics == [(run, step, *item) for step, row in steps for item in row.items()]
        assert client.ended == [run]


def test_what_is_not_finite_is_left_out_and_only_the_first_process_logs(hosts, small, tmp_path):
    observer, other = WandB(), MLflow()
    trainer = SimpleNamespace(
        world=SimpleNamespace(first=False), folder=RunFolder(tmp_path), config=small(epochs=1), stopped=False
    )
    for each in (observer, other):
        each.begin(trainer)
        each.epoch({"epoch": 1, "train/loss": 1.0})
    assert (hosts["init"], hosts["log"], Client.made) == ([], [], [])
    trainer.world.first = True
    observer.begin(trainer)
    observer.epoch({"epoch": 1, "train/loss": None, "train/lr": 0.1})
    assert hosts["log"] == [(1, {"train/lr": 0.1})]


@pytest.mark.parametrize(("observer", "package"), [(WandB, "wandb"), (MLflow, "mlflow")])
def test_what_is_missing_is_named(observer, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"{package} is not installed: pip install {package}"):
        observer()


@pytest.mark.slow
def test_the_command_line_asks_for_logs(hosts, tmp_path, capsys):
    out = str(tmp_path / "run")
    words = ["--recipe", "digits-standard", "--epochs", "1", "--device", "cpu", "--out", out]
    main(["train", *words, "--log", "wandb", "mlflow", "wandb"])
    assert [step for step, _ in hosts["log"]] == [1]
    (client,) = Client.made
    assert client.ended == ["8/run"]
    assert main(["train", *words, "--log", "wand"]) == 2
    assert "'wand' is none of tensorboard, wandb, mlflow" in capsys.readouterr().err


def test_what_goes_on_logs_again(tmp_path):
    command = read_command(["--recipe", "digits-bat", "--out", str(tmp_path), "--log", "mlflow", "wandb"])
    assert train._said(command) == " --log mlflow wandb"


@pytest.mark.parametrize("words", [["study", "memorisation"], ["study", "random-labels"], ["bench"]])
def test_who_trains_no_run_of_its_own_refuses_logs(words, capsys):
    assert main([*words, "--recipe", "digits-bat", "--log", "wandb"]) == 2
    assert "--log means nothing here: leave it out" in capsys.readouterr().err


def test_a_log_whose_package_is_missing_is_named_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert main(["train", "--recipe", "digits-bat", "--out", str(tmp_path / "run"), "--log", "tensorboard"])
    assert "tensorboard is not installed: pip install tensorboard" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
