import sys
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from bat_fast.cli import main
from bat_fast.config import AttackConfig, EvalConfig, Ratio
from bat_fast.study import cluster
from bat_fast.study.cluster import Share, submit
from bat_fast.study.folder import Plan, StudyFolder
from bat_fast.study.jobs import read_splits, train_job

PLAN = Plan(k=3, ratio=0.7, attack=None, seed=0)


@pytest.fixture
def study(small, tmp_path):
    config = small(
        epochs=1,
        batch_size=512,
        device="cpu",
        attack=AttackConfig(eps=Ratio("1/10"), steps=1),
        eval=EvalConfig(val_steps=1, test_steps=1),
    )
    folder = StudyFolder(tmp_path / "study")
    folder.open(PLAN, config)
    return folder, config


@pytest.mark.slow
def test_jobs_of_the_local_executor_train_the_models(study, monkeypatch):
    pytest.importorskip("submitit", reason="submitit is not installed: pip install submitit")
    folder, config = study
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    jobs = submit(folder, config, "local", 2, {"timeout_min": 5})
    assert [job.result() for job in jobs] == [2, 1]
    assert folder.status().done == [0, 1, 2]
    wanted = train_job(PLAN, config, read_splits(config), 1, "cpu")
    found = folder.answers()
    assert {name: bits[1].tolist() for name, bits in found.items()} == {
        name: bits.tolist() for name, bits in wanted.items()
    }


def test_options_are_those_of_submitit_and_a_job_is_queued_again(study):
    pytest.importorskip("submitit", reason="submitit is not installed: pip install submitit")
    folder, config = study
    with pytest.raises(ValueError, match="--cluster: submitit does not take these options"):
        submit(folder, config, "local", 2, {"gpu_number": 1})
    share = Share(folder.path, config, 0, 2, "cpu")
    again = share.checkpoint()
    assert (again.function, again.args, again.kwargs) == (share, (), {})


def test_a_share_is_every_so_many_models(study, monkeypatch):
    folder, config = study
    asked = []
    monkeypatch.setattr("bat_fast.study.cluster.work", lambda *what: asked.append(what) or 2)
    assert Share(folder.path, config, 1, 2, "cuda:1")() == 2
    ((where, how, jobs, device),) = asked
    assert (where.path, how, list(jobs), device) == (folder.path, config, [1], "cuda:1")


@pytest.mark.parametrize(
    ("kind", "device", "given", "visible", "devices"),
    [
        ("local", "auto", {}, 2, ["cuda:0", "cuda:1", "cuda:0"]),
        ("local", "auto", {"gpus_per_node": 1}, 1, ["cuda:0"] * 3),
        ("local", "auto", {"gpus_per_node": 0}, 0, ["auto"] * 3),
        ("local", "cpu", {}, 2, ["cpu"] * 3),
        ("slurm", "auto", {}, None, ["auto"] * 3),
    ],
)
def test_local_jobs_take_the_gpus_in_turn(study, monkeypatch, kind, device, given, visible, devices):
    folder, config = study
    asked = {}

    class Executor:
        batch = nullcontext

        def submit(self, share):
            return share

    monkeypatch.setattr(cluster, "_executor", lambda *what: asked.update(what[2]) or Executor())
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    shares = submit(folder, replace(config, device=device), kind, 3, given)
    assert asked.get("gpus_per_node") == visible
    assert [share.device for share in shares] == devices


def test_what_submitit_refuses_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    words = ["study", "memorisation", "--recipe", "digits-pgd-at", "--out", str(tmp_path / "new")]
    words += ["--cluster", "local"]

    class Executor:
        def __init__(self, folder, cluster):
            (folder / cluster).mkdir(parents=True)  # as submitit does

        def update_parameters(self, **options):
            raise NameError(f"unknown: {', '.join(options)}")

    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(AutoExecutor=Executor))
    assert main([*words, "--cluster.gpu_number", "1"]) == 2
    assert "submitit does not take these options (unknown: " in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert main(words) == 1
    assert "--cluster needs submitit: pip install" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_bad_words_are_one_line(study, monkeypatch, capsys):
    folder, _ = study
    words = ["study", "memorisation", str(folder.path)]
    for more, error in (
        (["--cluster", "slurm", "--job", "1"], "--cluster shares the models out itself"),
        (["--cluster", "pbs"], "'pbs' is none of slurm, local"),
        (["--cluster.gpus_per_node", "1"], "--cluster.gpus_per_node: say --cluster slurm"),
        (["--cluster", "local", "--tasks", "0"], "--tasks must be at least 1"),
    ):
        assert main([*words, *more]) == 2
        text = capsys.readouterr().err
        assert error in text
        assert text.count("\n") == 1
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert main([*words, "--cluster", "local"]) == 1
    assert "--cluster needs submitit: pip install" in capsys.readouterr().err


def test_the_command_queues_and_ends(study, monkeypatch, capsys):
    folder, _ = study
    asked = []

    class Job:
        job_id = "17_0"

    monkeypatch.setattr(cluster, "check", lambda *_: None)
    monkeypatch.setattr("bat_fast.study.cluster.submit", lambda *what: asked.append(what) or [Job()])
    more = ["--cluster", "slurm", "--cluster.slurm_partition", "gpu", "--cluster.timeout_min=90"]
    assert main(["study", "memorisation", str(folder.path), *more]) == 0
    assert "queued      17_0" in capsys.readouterr().out
    assert asked[0][2:] == (
        "slurm",
        3,
        {"slurm_partition": "gpu", "timeout_min": 90},
    )  # no more jobs than models
    assert folder.status().done == []
