"""`bat-fast prepare`: what people see."""

import pytest

from bat_fast.cli import main
from bat_fast.data import load


def test_prepare(tiny_copy, capsys):
    assert main(["prepare", "tiny-imagenet", str(tiny_copy), "--workers", "1"]) == 0
    out = capsys.readouterr().out
    for text in (
        "130 of 130 images",
        "110 train + 20 test, 64x64",
        "built",
        "sha256",
        "left out  0",
        "0 is n0",
    ):
        assert text in out
    assert main(["prepare", "tiny-imagenet", str(tiny_copy)]) == 0
    assert "checked, every byte as it was written" in capsys.readouterr().out


def test_another_folder(tiny_copy, tmp_path, capsys):
    assert main(["prepare", "tiny-imagenet", str(tiny_copy), "--out", str(tmp_path / "cache")]) == 0
    assert len(load("tiny_imagenet", seed=0, root=tmp_path / "cache").test) == 20
    assert not (tiny_copy / "bat_fast_cache").exists()
    assert str(tmp_path / "cache") in capsys.readouterr().out


def test_left_out_files_are_named(tiny_copy, capsys):
    broken = next((tiny_copy / "train").rglob("*_4.JPEG"))
    broken.write_bytes(b"")
    assert main(["prepare", "tiny-imagenet", str(tiny_copy)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(broken) in error
    assert main(["prepare", "tiny-imagenet", str(tiny_copy), "--on_corrupt", "skip"]) == 0
    assert f"left out  1: image {broken}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["cifar10", "x"], "tiny-imagenet"),
        (["tiny-imagenet", "nowhere"], "nowhere/train is not a folder"),
        (["tiny-imagenet"], "path"),
        (["tiny-imagenet", "x", "--workers", "0"], "workers must be at least 1"),
    ],
)
def test_wrong_arguments(words, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", *words]) == 2
    assert text in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
