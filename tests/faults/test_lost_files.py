"""Files of a run that are damaged, missing or exchanged: it goes on with what is whole, or refuses."""

import shutil

import pytest
import torch

from bat_fast.data import load
from bat_fast.runs.checkpoint import load_checkpoint, save_checkpoint
from bat_fast.train import Trainer

pytestmark = pytest.mark.slow


def train(config, out, **options):
    trainer = Trainer(config, out, progress=False, **options)
    trainer.fit()
    return trainer


def content(out):
    return {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(small(checkpoint_every=3), out)
    return out


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def refused(small, out, message, **options):
    before = content(out)
    with pytest.raises(ValueError, match=message):
        Trainer(small(checkpoint_every=3), out, resume=True, progress=False, **options)
    assert content(out) == before, "a run that is refused stays as it is"


@pytest.mark.parametrize("lost", [("last",), ("last", "best"), ("missing",)])
def test_the_one_before_is_taken(lost, small, whole, run, capsys):
    places = run / "checkpoints"
    state = load_checkpoint(places / "last-2.pt")
    shutil.copy(places / "last-2.pt", places / "best.pt")  # so that nothing is newer
    state["best"] = None
    save_checkpoint(places / "last-2.pt", state)
    for name in lost:
        (places / "last.pt").unlink() if name == "missing" else cut(places / f"{name}.pt")
    train(small(checkpoint_every=3), run, resume=True)
    said = capsys.readouterr().out
    assert "WARNING" in said
    assert "last.pt is" in said
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_how_many_are_kept(small, tmp_path):
    train(small(epochs=2, checkpoint_every=1, checkpoint_keep=4), tmp_path / "run")
    names = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert names == {"best.pt", "last.pt", "last-2.pt", "last-3.pt", "last-4.pt"}
    last = [load_checkpoint(tmp_path / "run" / "checkpoints" / f"last{n}.pt") for n in ("", "-2", "-3")]
    steps = len(Trainer(small(), tmp_path / "other", progress=False).loader)
    places = [(s["epoch"], s["running"]["loader"]["position"] if "running" in s else 0) for s in last]
    assert places == [(2, 0), (1, steps), (1, steps - 1)]
    train(small(epochs=2, checkpoint_keep=1), tmp_path / "one")
    assert {p.name for p in (tmp_path / "one" / "checkpoints").iterdir()} == {"best.pt", "last.pt"}


def test_nothing_is_whole(small, run):
    for path in (run / "checkpoints").iterdir():
        cut(path)
    refused(small, run, "there is no other to go on from: start another run with --out")
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    refused(small, run, r"last\.pt is missing, though .*metrics\.jsonl has epochs")


def test_the_best_epoch_is_damaged_or_of_another_run(small, run, tmp_path):
    best = run / "checkpoints" / "best.pt"
    original = best.read_bytes()
    cut(best)
    refused(small, run, r"best\.pt is not a complete checkpoint")
    best.unlink()
    refused(small, run, r"best\.pt is missing")
    other = tmp_path / "other"
    train(small(seed=5), other)
    shutil.copy(other / "checkpoints" / "best.pt", best)
    refused(small, run, "of another run")
    best.write_bytes(original)
    state = load_checkpoint(best)
    save_checkpoint(best, {name: value for name, value in state.items() if name != "model"})
    refused(small, run, "it has no model")


def test_lost_metrics_are_written_again(small, whole, run, capsys):
    (run / "metrics.jsonl").unlink()
    train(small(checkpoint_every=3), run, resume=True)
    assert "metrics.jsonl has lost epochs; it is written again" in capsys.readouterr().out
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_other_data_are_refused(small, tmp_path):
    splits, run = load("digits", seed=0), tmp_path / "given"
    Trainer(small(epochs=1, checkpoint_every=3), run, progress=False, splits=splits).fit()
    renamed = splits.train.class_names[::-1]
    swapped = splits.train.part(torch.arange(len(splits.train)).flip(0))
    fewer = splits.train.part(torch.arange(len(splits.train) - 1))
    object.__setattr__(other := splits.train.part(torch.arange(len(splits.train))), "class_names", renamed)
    for train_part, what in ((other, "names of the classes"), (fewer, "sizes"), (swapped, "labels")):
        refused(small, run, f"the data have changed; its {what}", splits=splits._replace(train=train_part))


def test_a_damaged_one_does_not_take_the_place_of_the_one_before(small, run):
    cut(run / "checkpoints" / "last.pt")
    before = (run / "checkpoints" / "last-2.pt").read_bytes()
    trainer = Trainer(small(checkpoint_every=3), run, resume=True, progress=False)
    trainer.folder.make_room(2)  # what the next checkpoint begins with
    trainer.folder.lock.end()
    assert (run / "checkpoints" / "last-2.pt").read_bytes() == before
