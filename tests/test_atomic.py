import errno
import os

import pytest
import torch

from bat_fast._atomic import UnwritableError, atomic_write, writing
from bat_fast.runs.checkpoint import save_checkpoint
from bat_fast.runs.folder import RunFolder
from bat_fast.train.health import advice


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "file"
    for content in (b"old", b"new"):
        atomic_write(path, lambda file, content=content: file.write(content))
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_crash_between_write_and_rename_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def crash(source, target):
        assert source.read_bytes() == b"new"
        assert target == path
        raise RuntimeError("power cut")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(RuntimeError, match="power cut"):
        atomic_write(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"old"


def test_a_crash_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, write)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_bytes_reach_the_disk_before_the_name(tmp_path, monkeypatch):
    calls = []
    real_sync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("sync"), real_sync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), real_replace(a, b))[1])
    atomic_write(tmp_path / "file", lambda file: file.write(b"x"))
    assert calls == ["sync", "replace", "sync"]


def test_a_disk_that_is_full_is_named_with_the_file_and_the_checkpoint_that_is_left(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    folder.last.parent.mkdir(parents=True)
    real, texts = torch.save, []

    class Full:
        def __init__(self, file):
            self.file, self.flush = file, file.flush

        def write(self, part):
            if self.file.tell() + len(part) > 5000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.file.write(part)

    monkeypatch.setattr(torch, "save", lambda state, file: real(state, Full(file)))
    for size in (10, 5000):  # the first fits; of the second torch says "unexpected pos", not why
        try:
            with advice(folder.last, lambda: ""):
                save_checkpoint(folder.last, {"epoch": size, "weights": torch.zeros(size)})
        except UnwritableError as error:
            texts.append(f"{error.errno}: {error}")
    (text,) = texts
    assert text.startswith(f"{errno.ENOSPC}: {folder.last} cannot be written: No space left on device, with ")
    assert "MB free; what was there before is kept; make room" in text
    assert text.endswith(
        f"{folder.last} is whole: bat-fast train --resume --out {folder.path} goes on from it"
    )
    assert list(folder.last.parent.iterdir()) == [folder.last]
    assert torch.load(folder.last)["epoch"] == 10


def test_what_was_in_the_way_before_is_no_cause(tmp_path):
    try:
        raise OSError("of before")
    except OSError:
        with pytest.raises(ValueError, match="ours"), writing(tmp_path / "file"):
            raise ValueError("ours") from None
    inside = tmp_path / "file" / "a"
    inside.parent.touch()
    text = r"file/a cannot be written: Not a directory; give another"
    with pytest.raises(UnwritableError, match=text), writing(inside, "give another"):
        inside.mkdir()
