import os

import pytest

from bat_fast._atomic import atomic_write


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
