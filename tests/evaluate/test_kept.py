"""Evaluations that end early go on, run out of memory, and are shared by processes: the same verdicts."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from bat_fast.attacks import APGD, FAB, PGD, AutoAttack, Square, autoattack, done
from bat_fast.attacks.room import Room
from bat_fast.cli import main
from bat_fast.evaluate.judge import evaluate_model
from bat_fast.evaluate.kept import Kept, State, place_for
from bat_fast.evaluate.verdicts import Verdicts

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "tests" / "runs" / "stored" / "finished.safetensors"
PARTS = {"apgd-ce": (APGD, {"steps": 3}), "square": (Square, {"queries": 60})}
WORDS = ["--attack", "pgd2", "aa", "--n", "60", "--batch_size", "16", "--checks", "none", "--device", "cpu"]

CHILD = """
import sys, time
from bat_fast.attacks import APGD, Square, autoattack
from bat_fast.cli import main
from bat_fast.evaluate.kept import Kept
autoattack._VERSIONS["standard"] = {"apgd-ce": (APGD, {"steps": 3}), "square": (Square, {"queries": 60})}
put, left = Kept.put, int(sys.argv[1])
def slowly(self, name, tensors):
    global left
    put(self, name, tensors)
    left -= 1
    if not left:
        print("now", flush=True)
        time.sleep(100)
Kept.put = slowly
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """An AutoAttack of two short attacks."""
    monkeypatch.setitem(autoattack._VERSIONS, "standard", PARTS)


def child(*words, **environment):
    command = [sys.executable, "-c", CHILD, *map(str, words)]
    threads = {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ | threads | environment
    )


@pytest.fixture
def model(tmp_path):
    return Path(shutil.copy(MODEL, tmp_path / "model.safetensors"))


def evaluated(model, folder, *more):
    """The CSV and the JSON of the command, without what is left behind."""
    folder.mkdir()
    files = ["--per_sample", str(folder / "a.csv"), "--out", str(folder / "a.json")]
    assert main(["eval", str(model), *WORDS, *more, *files]) == 0
    return (folder / "a.csv").read_text(), json.loads((folder / "a.json").read_text())


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_within_the_attack(model, tmp_path, monkeypatch):
    whole = evaluated(model, tmp_path / "whole")
    assert not place_for(model).exists()
    process = child(6, "eval", model, *WORDS, "--per_sample", tmp_path / "b.csv")
    assert process.stdout.readline() == "now\n"
    process.kill()
    process.wait()
    assert place_for(model).is_dir()
    seen = []
    call = APGD.__call__
    monkeypatch.setattr(PGD, "__call__", lambda *_, **__: pytest.fail("PGD has been done"))
    monkeypatch.setattr(
        APGD, "__call__", lambda self, x, *rest, **more: seen.append(len(x)) or call(self, x, *rest, **more)
    )
    assert evaluated(model, tmp_path / "again") == whole
    assert not place_for(model).exists()
    # kept were: clean, pgd2, and four batches, of which APGD has about three
    assert sum(seen) < int(60 * whole[1]["metrics"]["test/clean_acc"]) - 16 * 2


@pytest.mark.slow
def test_processes_share_the_images(model, tmp_path, monkeypatch):
    whole, _ = evaluated(model, tmp_path / "whole")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    other = child(
        0, "eval", model, *WORDS, "--per_sample", tmp_path / "b.csv", **world, RANK="1", LOCAL_RANK="1"
    )
    for name, value in {**world, "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    try:
        found, said = evaluated(model, tmp_path / "shared")
        assert other.wait(60) == 0
    finally:
        other.kill()
    assert found == whole
    assert not place_for(model).exists()
    assert said["n_examples"] == 60
    assert not (tmp_path / "b.csv").exists()


class KilledError(BaseException):
    """In the place of a kill."""


@pytest.mark.parametrize("mode", ["exact", "replay"])
def test_an_attack_goes_on_where_it_was_killed(mode, tmp_path, monkeypatch):
    """Between pieces that are kept: starts of PGD and APGD, classes of FAB, blocks of queries of Square."""
    parts = {
        "apgd-ce": (APGD, {"steps": 2, "restarts": 2}),
        "fab-t": (FAB, {"targets": 2, "steps": 2}),
        "square": (Square, {"queries": 130}),
    }
    monkeypatch.setitem(autoattack._VERSIONS, "standard", parts)
    monkeypatch.setattr(done, "_EVERY", 0.0)
    put, files, calls, most = Kept.put, [], [], 0

    def counted(self, name, tensors):
        put(self, name, tensors)
        calls.append(name)
        if len(calls) == most:
            raise KilledError

    monkeypatch.setattr(Kept, "put", counted)

    def judge():
        state, ended = State(tmp_path / "state"), False
        files.append(tmp_path / f"{len(files)}.csv")
        try:
            found = evaluate_model(
                Linear(), [images(10)], ["pgd2x3-any", "aa"], eps=0.05, mode=mode, state=state,
                per_sample=files[-1],
            )  # fmt: skip
            ended = True
        finally:
            state.end(finished=ended)
        return found, files[-1].read_text()

    whole, pieces = judge(), list(calls)
    backwards = pieces[::-1]
    for name in ("starts", "runs", "square 0"):
        for number in {pieces.index(name) + 1, len(pieces) - backwards.index(name)}:
            calls, most = [], number
            with pytest.raises(KilledError):
                judge()
            calls, most = [], 0
            assert judge() == whole
            assert calls == pieces[number:]


class Linear(nn.Module):
    """Five classes of 4x4 images."""

    def __init__(self, seed=0):
        super().__init__()
        self.layer = nn.Linear(16, 5)
        with torch.no_grad():
            self.layer.weight.normal_(generator=torch.Generator().manual_seed(seed))
            self.layer.bias.zero_()

    def forward(self, x):
        return self.layer(x.flatten(1))


def images(n=40, seed=0):
    x = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return x, Linear()(x).argmax(1)


def test_another_evaluation_is_left_alone_and_said(tmp_path):
    def judge(model=None, x=None, seed=0, finished=False, **more):
        state = State(tmp_path / "state")
        try:
            data = images() if x is None else x
            attacks = ["pgd2", "aa"]
            return evaluate_model(
                model or Linear(), [data], attacks, eps=0.05, seed=seed, state=state, **more
            )
        finally:
            state.end(finished=finished)

    first = judge()
    assert first["notes"] == []
    assert judge() == first  # from what is kept
    (note,) = judge(seed=1, finished=True)["notes"]
    assert note.startswith(f"{tmp_path / 'state'}")
    assert note.endswith(", which may be deleted, is left alone: an unfinished evaluation with other attacks")
    assert judge(Linear(1), finished=True)["notes"][0].endswith("with other weights")
    assert judge(batch_size=9, finished=True)["notes"][0].endswith("with other batch_size")
    with pytest.raises(ValueError, match="the data have changed: delete that folder"):
        judge(x=images(seed=1))
    (about,) = tmp_path.glob("state/*/evaluation.json")
    lock = tmp_path / "state" / f".{about.parent.name}.lock"
    lock.write_text(json.dumps({"host": "elsewhere", "pid": 1, "began": 0}))
    with pytest.raises(BlockingIOError, match=r"evaluation in .* is written by process 1 on elsewhere"):
        judge()
    lock.unlink()
    about.write_text("{}")
    assert judge(seed=1, finished=True)["notes"][0].endswith("is damaged, and was not looked at; delete it")
    assert judge(finished=True) == first
    assert not (tmp_path / "state").exists()


def test_the_shares_of_one_evaluation_are_no_strangers(tmp_path):
    for world, notes in (((1, 2), 0), ((0, 2), 0), ((0, 3), 2)):
        state = State(tmp_path)
        kept = state.open(Linear(), {"world": list(world)})
        kept.put("a", {"one": torch.ones(1)})
        assert len(state.notes) == notes, state.notes
        state.end(finished=False)
    assert state.notes[0].endswith("an unfinished evaluation with other world")


def test_a_process_without_an_image_reports_the_others():
    verdicts = Verdicts("test", {})
    verdicts.gather([{"position": torch.tensor([1, 0]), "label": torch.tensor([5, 4])}, {}])
    assert verdicts["label"].tolist() == [4, 5]


def test_what_was_found_of_other_images_is_found_again(tmp_path):
    """As when a random model, asked again, is right about others."""
    (x, y), kept = images(), Kept(tmp_path)
    attack = AutoAttack(Linear(), 0.05, batch_size=16)
    attack.judge(x, y, done=kept)
    other = y.clone()
    other[0] = (y[0] + 1) % 5
    wanted, found = attack.judge(x, other), attack.judge(x, other, done=kept)
    assert found.broken_by == wanted.broken_by
    assert torch.equal(found.adv, wanted.adv)
    assert 0 < sum(found.robust) < len(x)


@pytest.mark.parametrize("attack", [PGD, APGD])
def test_what_is_kept_within_an_attack_is_of_its_batch(attack, tmp_path, monkeypatch):
    monkeypatch.setattr(done, "_EVERY", 0.0)
    (x, y), kept = images(), Kept(tmp_path)
    x, other = x.clamp(0.1, 0.9), 1 - x
    attack = attack(Linear(), 0.001, steps=3, restarts=2)  # so small a ball that images are left
    for pixels in (x, other, x[:3], x):
        how = {"draw": 0, "done": kept}
        assert torch.equal(attack(pixels, y[: len(pixels)], **how), attack(pixels, y[: len(pixels)], draw=0))
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3, "one for each batch"


def test_what_is_damaged_is_found_again(tmp_path):
    kept = Kept(tmp_path).within("some")
    kept.put("a", {"one": torch.arange(5)})
    assert torch.equal(kept.get("a")["one"], torch.arange(5))
    (file,) = tmp_path.rglob("*.safetensors")
    whole = file.read_bytes()
    for place in (3, len(whole) // 2, len(whole) - 2):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert kept.get("a") is None
    file.write_bytes(whole[:-1])
    assert kept.get("a") is None
    nothing = Kept(None)
    nothing.put("a", {"one": torch.arange(5)})
    assert nothing.get("a") is None


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    state = State(tmp_path / "file")
    found = evaluate_model(Linear(), [images()], ["pgd2"], eps=0.05, state=state)
    state.end(finished=True)
    assert "nothing is kept in case this ends early" in found["notes"][0]
    assert (tmp_path / "file").exists()


class Full(Linear):
    """Has memory for ``most`` images."""

    def __init__(self, most, error=torch.OutOfMemoryError):
        super().__init__()
        self.most, self.error = most, error

    def forward(self, x):
        if len(x) > self.most:
            raise self.error("CUDA out of memory. Tried to allocate")
        return super().forward(x)


@pytest.mark.filterwarnings("ignore:bat_fast. attacks on Full are not folded")
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_out_of_memory_halves_the_batch(error, tmp_path):
    how = {"eps": 0.05, "batch_size": 32}
    files = [tmp_path / name for name in ("a.csv", "b.csv")]
    whole = evaluate_model(Linear(), [images()], ["pgd3", "aa"], per_sample=files[0], **how)
    found = evaluate_model(Full(9, error), [images()], ["pgd3", "aa"], per_sample=files[1], **how)
    assert found["notes"] == [
        f"memory ran out: batch_size is {size} from here on; the verdicts are the same" for size in (16, 8)
    ]
    assert found | {"notes": []} == whole
    assert files[0].read_text() == files[1].read_text()


@pytest.mark.filterwarnings("ignore:bat_fast. attacks on Full are not folded")
def test_where_less_is_of_no_use():
    with pytest.raises(RuntimeError, match="no memory for one image: CUDA out of memory"):
        evaluate_model(Full(0), [images()], ["pgd1"], eps=0.05)
    with pytest.raises(RuntimeError, match="mode replay repeats batches of the official size"):
        evaluate_model(Full(9), [images()], ["aa"], eps=0.05, mode="replay", batch_size=32)
    with pytest.warns(UserWarning, match="batch_size is 20 from here on"):
        AutoAttack(Full(25), 0.05, batch_size=40).judge(*images())
    with pytest.raises(RuntimeError, match="something else"):
        Room(4).tried(lambda: (_ for _ in ()).throw(RuntimeError("something else")))
