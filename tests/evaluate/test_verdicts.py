import csv
import json
from types import SimpleNamespace

import pytest
import torch

from bat_fast.attacks import AutoAttack
from bat_fast.batch import Batch
from bat_fast.cli import main
from bat_fast.evaluate import judge as module
from bat_fast.evaluate import load_run
from bat_fast.evaluate.autoattack import evaluate_autoattack
from bat_fast.evaluate.groups import first, joined
from bat_fast.evaluate.saved import evaluate_saved, split_loader
from bat_fast.evaluate.verdicts import COLUMNS, Verdicts, notes_of
from bat_fast.train import Trainer


@pytest.fixture(scope="module")
def run(tmp_path_factory, small):
    out = tmp_path_factory.mktemp("runs") / "run"
    Trainer(small(epochs=2), out, progress=False).fit()
    return out


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_verdicts_of_each_image(run, tmp_path, capsys):
    file = tmp_path / "verdicts.csv"
    words = ["--attack", "aa", "--mode", "quick", "--eps", "1/20", "--n", "90", "--device", "cpu"]
    assert main(["eval", str(run), *words, "--per_sample", str(file), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    rows = table(file)
    assert tuple(rows[0]) == COLUMNS
    assert [int(row["position"]) for row in rows] == list(range(90))
    assert said["n_examples"] == 90
    assert said["metrics"] == {
        "test/clean_acc": sum(row["clean"] == "1" for row in rows) / 90,
        "test/aa_quick_acc": sum(row["robust"] == "1" for row in rows) / 90,
    }
    assert said["attack"] == {"norm": "linf", "eps": 0.05, "mode": "quick", "version": "standard", "seed": 0}
    for name, count in said["broken_by"].items():
        assert sum(row["broken_by"] == name for row in rows) == count
    assert sum(said["broken_by"].values()) == sum(row["robust"] == "0" for row in rows) > 0
    model, saved = load_run(run)
    batch = next(iter(split_loader(saved, "test", 90, "cpu")))
    verdicts = AutoAttack(model, 0.05, mode="quick").judge(*batch)
    assert [row["broken_by"] for row in rows] == verdicts.broken_by
    assert [int(row["index"]) for row in rows] == batch.index.tolist()
    assert [int(row["label"]) for row in rows] == batch.y.tolist()


def test_the_table_for_people(run, capsys):
    assert (
        main(
            [
                "eval",
                str(run),
                "--attack",
                "aa",
                "--mode",
                "quick",
                "--norm",
                "l2",
                "--eps",
                "1/2",
                "--n",
                "20",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "upper bound" in out
    assert "broken by clean" in out
    assert "l2 eps 0.5, 20 images" in out


@pytest.mark.slow
def test_the_whole_attack_is_no_weaker_than_pgd(run):
    whole = evaluate_autoattack(run, n=60, device="cpu")
    quick = evaluate_autoattack(run, n=60, device="cpu", mode="quick")
    assert whole["metrics"]["test/aa_acc"] <= quick["metrics"]["test/aa_quick_acc"]
    assert whole["metrics"]["test/clean_acc"] == quick["metrics"]["test/clean_acc"]
    assert evaluate_autoattack(run, n=60, device="cpu", batch_size=13) == whole


def test_images_come_in_groups_of_any_size(run, tmp_path, monkeypatch):
    """The same verdicts whether all images are in memory together or a few."""
    options = {"mode": "quick", "n": 50, "device": "cpu", "eps": 0.1}
    evaluate_autoattack(run, **options, per_sample=tmp_path / "a.csv")
    monkeypatch.setattr(module, "_TOGETHER", 20)
    evaluate_autoattack(run, **options, per_sample=tmp_path / "b.csv", batch_size=8)
    assert table(tmp_path / "a.csv") == table(tmp_path / "b.csv")


def test_batches_are_cut_and_joined():
    def batches():
        for at in (0, 4, 8):
            index = torch.arange(at, at + 4)
            yield Batch(index.float()[:, None, None, None], index % 2, index)

    assert [batch.index.tolist() for batch in first(batches(), 5)] == [[0, 1, 2, 3], [4]]
    assert [len(batch.y) for batch in first(batches(), None)] == [4, 4, 4]
    assert [len(batch.y) for batch in joined(batches(), 5)] == [8, 4]
    assert [batch.index.tolist() for batch in joined(batches(), None)] == [list(range(12))]
    assert list(joined(iter(()), None)) == []


def test_what_makes_a_result_doubtful():
    notes = notes_of({"clean": 5, "apgd-ce": 10, "apgd-t": 30, "fab-t": 0, "square": 1}, 100, 10)
    assert ["apgd-t" in notes[0], "square" in notes[1], len(notes)] == [True, True, 2]
    assert notes_of({"clean": 5, "apgd-ce": 10, "apgd-t": 3, "fab-t": 0, "square": 0}, 100, 4) == []
    assert "apgd-t climbed the margin" in notes_of({"clean": 5, "apgd-t": 3}, 100, 3)[0]
    assert notes_of({"clean": 5, "apgd-ce": 3}, 100, 3) == []


def test_other_attacks_by_name(run):
    found = evaluate_saved(run, attack="apgd5", eps=0.05, device="cpu")
    assert found["metrics"]["test/apgd5_acc"] <= found["metrics"]["test/clean_acc"]
    assert found["attack"]["steps"] == 5


def test_errors(run, tmp_path):
    with pytest.raises(ValueError, match="n must be at least 1"):
        evaluate_autoattack(run, n=0)
    with pytest.raises(ValueError, match="split must be one of"):
        evaluate_autoattack(run, split="tset")
    with pytest.raises(ValueError, match="there is no folder"):
        evaluate_autoattack(run, per_sample=tmp_path / "nowhere" / "a.csv")
    with pytest.raises(ValueError, match="say the radius in l2"):
        evaluate_autoattack(run, norm="l2")
    with pytest.raises(ValueError, match="mode must be one of"):
        evaluate_autoattack(run, mode="slow")


def test_it_tells_how_far_it_is(run, monkeypatch):
    monkeypatch.setattr("bat_fast.cli.verbs.eval.sys", SimpleNamespace(stderr=Terminal()))
    assert main(["eval", str(run), "--attack", "aa", "--mode", "quick", "--n", "10", "--device", "cpu"]) == 0
    assert "apgd-ce: " in Terminal.text
    assert "robust so far" in Terminal.text


class Terminal:
    """A standard error that a person looks at."""

    text = ""

    def isatty(self):
        return True

    def write(self, text):
        Terminal.text += text

    def flush(self):
        pass


def test_a_process_without_an_image_has_the_verdicts_of_the_others():
    found = Verdicts("test", {})
    found.gather([{"position": torch.tensor([0]), "label": torch.tensor([7])}, {}])
    assert (len(found), found["label"].tolist()) == (1, [7])
