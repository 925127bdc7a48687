"""Several seeds in one command."""

import json

import pytest

from bat_fast.cli import main
from bat_fast.runs.folder import runs_of

TINY = [
    "train", "--recipe", "digits-bat", "--epochs", "1", "--attack.steps", "1", "--batch_size", "256",
    "--eval.val_steps", "1", "--eval.test_steps", "1", "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "pair"
    assert main([*TINY, "--seeds", "3", "5", "--out", str(out)]) == 0
    return out


def test_each_seed_is_a_run_of_its_own(pair, tmp_path):
    assert sorted(path.name for path in pair.iterdir()) == ["seed-3", "seed-5"]
    alone = tmp_path / "alone"
    assert main([*TINY, "--seed", "5", "--out", str(alone)]) == 0
    for file in ("model.safetensors", "config.yaml"):
        assert (pair / "seed-5" / file).read_bytes() == (alone / file).read_bytes()
    assert (pair / "seed-3" / "model.safetensors").read_bytes() != (alone / "model.safetensors").read_bytes()


def test_resuming_trains_what_is_not_finished(pair, capsys):
    model = pair / "seed-3" / "model.safetensors"
    before = model.stat().st_mtime_ns
    assert main(["train", "--resume", "--out", str(pair), "--seeds", "3", "5", "8"]) == 0
    out = capsys.readouterr().out
    assert model.stat().st_mtime_ns == before
    assert out.count("(finished)") == 2
    assert "best epoch 1 of 1" in out  # the table of the new one
    assert "seeds 3, 5, 8" in out
    assert f"bat-fast report {pair / 'seed-3'} {pair / 'seed-5'} {pair / 'seed-8'}" in out
    results = json.loads((pair / "seed-8" / "results.json").read_text())
    assert (results["seed"], results["config"]["epochs"]) == (8, 1)


def test_the_folder_of_the_seeds_stands_for_its_runs(pair, tmp_path, capsys):
    (tmp_path / "two").mkdir()
    for seed in (3, 5):
        (tmp_path / "two" / f"seed-{seed}").symlink_to(pair / f"seed-{seed}")
    assert main(["compare", str(tmp_path / "two"), "--json"]) == 0
    printed = capsys.readouterr().out
    assert main(["compare", *map(str, sorted((tmp_path / "two").iterdir())), "--json"]) == 0
    assert capsys.readouterr().out == printed
    assert main(["report", str(tmp_path / "two"), "--images", "0"]) == 0
    assert (tmp_path / "two" / "report.html").exists()
    assert runs_of([pair / "seed-3", tmp_path]) == [pair / "seed-3", tmp_path]  # a run, and no run at all


def test_bad_input_is_one_line_before_anything_is_trained(pair, tmp_path, capsys):
    there = sorted(pair.iterdir())
    for words, text in (
        ([*TINY, "--out", str(pair), "--seeds", "9", "5"], "--resume"),
        ([*TINY, "--out", str(pair), "--seeds", "5", "--resume", "--optim.lr", "0.5"], "optim.lr was"),
        ([*TINY, "--out", str(tmp_path / "new"), "--seeds", "1", "2", "1"], "a seed twice"),
        ([*TINY, "--out", str(tmp_path / "new"), "--seeds", "one"], "--seeds"),
        (["train", "--resume", "--out", str(pair)], "--seeds 3 5"),
        (["train", "--resume", "--out", str(tmp_path), "--seeds", "1"], "no run to resume"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert text in error
        assert error.count("\n") == 1
    assert sorted(pair.iterdir()) == there
    assert not (tmp_path / "new").exists()
