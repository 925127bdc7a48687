"""Two programs that write to one folder: the second is told so, and who was killed holds nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bat_fast._lock import Lock
from bat_fast.data.cache import FOLDER, build_cache
from bat_fast.data.sets import tiny_imagenet
from bat_fast.runs.folder import RunFolder
from bat_fast.train import Trainer

HOLD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from bat_fast._lock import Lock
Lock(Path(sys.argv[1]), "it").take()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder():
    """holder(path) -> a process that holds the lock ``path``."""
    children = []

    def hold(path):
        root = str(Path.cwd())
        command = [sys.executable, "-c", HOLD, str(path), root]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        children.append(child)
        assert child.stdout.readline() == "held\n"
        return child

    yield hold
    for child in children:
        child.kill()
        child.wait()


def test_the_second_is_told_who_is_there(holder, tmp_path):
    child = holder(tmp_path / "lock")
    with pytest.raises(
        BlockingIOError, match=rf"it is written by process {child.pid} on .*, since "
    ) as caught:
        Lock(tmp_path / "lock", "it").take()
    assert "\n" not in str(caught.value)
    assert json.loads((tmp_path / "lock").read_text())["pid"] == child.pid, "the holder's file is as it was"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_holder_holds_nothing(end, holder, tmp_path):
    child = holder(tmp_path / "lock")
    child.send_signal(end)
    child.wait()
    assert (tmp_path / "lock").exists()
    lock = Lock(tmp_path / "lock", "it")
    lock.take()
    assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    lock.end()
    assert not (tmp_path / "lock").exists()


def test_another_computer_is_known_by_age(tmp_path):
    path = tmp_path / "lock"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 7, "began": 0}))
    with pytest.raises(BlockingIOError, match="process 7 on elsewhere"):
        Lock(path, "it").take()
    assert path.exists()
    long_ago = time.time() - 3600
    os.utime(path, (long_ago, long_ago))
    Lock(path, "it").take()


def test_without_locks_of_the_system_the_process_is_looked_for(holder, tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError("no locks here")

    child = holder(tmp_path / "lock")
    monkeypatch.setattr("fcntl.lockf", unsupported)
    with pytest.raises(BlockingIOError, match=f"process {child.pid} "):
        Lock(tmp_path / "lock", "it").take()
    child.kill()
    child.wait()
    Lock(tmp_path / "lock", "it").take()


def test_one_process_may_take_it_twice(tmp_path):
    one, two = Lock(tmp_path / "lock", "it"), Lock(tmp_path / "lock", "it")
    one.take()
    two.take()
    one.end()
    one.end()
    assert (tmp_path / "lock").exists()
    two.end()
    assert not (tmp_path / "lock").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"host": 3}'])
def test_an_odd_file_is_no_holder(content, tmp_path):
    (tmp_path / "lock").write_text(content)
    os.utime(tmp_path / "lock", (0, 0))
    Lock(tmp_path / "lock", "it").take()


def test_a_link_that_lies_in_wait_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("x")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError):
        Lock(tmp_path / "lock", "it").take()
    assert (tmp_path / "precious").read_text() == "x"


def test_training(small, holder, tmp_path):
    out = tmp_path / "run"
    Trainer(small(epochs=1), out, progress=False).fit()
    assert not (out / ".lock").exists()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    child = holder(out / ".lock")
    with pytest.raises(BlockingIOError, match=rf"run is written by process {child.pid} "):
        Trainer(small(epochs=1), out, resume=True)
    child.kill()
    child.wait()
    (out / ".lock").unlink()
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_run_that_is_refused_or_fails_is_free_again(small, tmp_path, monkeypatch):
    out = tmp_path / "run"
    trainer = Trainer(small(epochs=1), out, progress=False)
    assert (out / ".lock").exists()
    monkeypatch.setattr(trainer, "_train_epoch", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.fit()
    assert not (out / ".lock").exists()
    with pytest.raises(ValueError, match="batch_size was"):
        Trainer(small(epochs=1, batch_size=64), out, resume=True)
    assert not (out / ".lock").exists()


def test_drafts_of_a_killed_run_are_taken_away(small, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.open(small(), resume=False)
    drafts = [folder.path / ".metrics.jsonl.0a.tmp", folder.best.parent / ".last.pt.1b.tmp"]
    for draft in drafts:
        draft.write_bytes(b"half")
    folder.open(small(), resume=True)
    folder.lock.end()
    assert not any(draft.exists() for draft in drafts)


def test_preparing(tiny_copy, holder):
    folder = tiny_copy / FOLDER
    child = holder(tiny_copy / f".{FOLDER}.lock")
    with pytest.raises(BlockingIOError, match=rf"cache .* is written by process {child.pid} "):
        build_cache(tiny_imagenet.contents(tiny_copy), folder, workers=1)
    child.kill()
    child.wait()
    build_cache(tiny_imagenet.contents(tiny_copy), folder, workers=1)
    assert not (tiny_copy / f".{FOLDER}.lock").exists()


TWO = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from bat_fast.data.prepare import prepare
try:
    prepare("tiny-imagenet", sys.argv[1], workers=1)
except BlockingIOError as error:
    sys.exit(3)
"""


@pytest.mark.slow
def test_two_that_prepare_at_once(tiny_copy):
    command = [sys.executable, "-c", TWO, str(tiny_copy), str(Path.cwd())]
    children = [subprocess.Popen(command) for _ in range(3)]
    ends = [child.wait() for child in children]
    assert set(ends) <= {0, 3}
    assert 0 in ends
    whole = build_cache(tiny_imagenet.contents(tiny_copy), tiny_copy / "other", workers=1)
    assert build_cache(tiny_imagenet.contents(tiny_copy), tiny_copy / FOLDER)["sha256"] == whole["sha256"]
