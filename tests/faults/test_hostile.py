"""Files and names from people who mean harm: nothing runs, grows, waits for ever or steers a terminal."""

import io
import json
import os
import pickle
import struct
import sys
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bat_fast import cli
from bat_fast.data.arrays import read_npz
from bat_fast.report.page import render
from bat_fast.report.run import read_run
from bat_fast.runs.checkpoint import load_checkpoint
from bat_fast.runs.model_file import load_run
from bat_fast.runs.weights import read_weights
from bat_fast.train import Trainer

NAMES = (
    "[bold red]a[/]",
    "<script>alert(1)</script>",
    "../../up",
    "two\nlines",
    "\x1b[2Jcleared",
    "&amp;'\"",
)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_refused_at_once(kind, tmp_path):
    path = tmp_path / "model.safetensors"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    for read in (load_checkpoint, read_npz):
        with pytest.raises(ValueError, match=f"is a {kind}"):
            read(path)
    for read in (read_weights, load_run):
        with pytest.raises((ValueError, FileNotFoundError), match=r"model\.safetensors"):
            read(path)


def test_what_would_grow_is_refused(tmp_path):
    torch.save({"epoch": 1, "zeros": torch.zeros(9)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for part in plain.infolist():
            bomb.writestr(part.filename, plain.read(part))
    with pytest.raises(
        ValueError, match=r"bomb\.pt is not a complete checkpoint \(it is a compressed archive"
    ):
        load_checkpoint(tmp_path / "bomb.pt")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**44,)})
    with zipfile.ZipFile(tmp_path / "large.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    with pytest.raises(ValueError, match=r"large\.npz cannot be read"):
        read_npz(tmp_path / "large.npz")


@pytest.mark.parametrize(
    "changes",
    [
        {"num_classes": "1000000000"},
        {"num_classes": "-99999"},
        {"in_channels": "99999999"},
        {"image_size": "99999999"},
        {"options": '{"depth": 1000000}'},
    ],
    ids=str,
)
def test_a_header_asks_for_no_more_than_the_file_holds(changes, tmp_path):
    said = {"bat_fast": "0", "arch": "small_cnn", "num_classes": "10", "in_channels": "1", "image_size": "8"}
    said |= {"activation": "relu", "eps": "0.1", "step_size": "0.1", "norm": "linf", "seed": "0"} | changes
    save_file({"weight": torch.zeros(10, 3)}, tmp_path / "model.safetensors", said)
    with pytest.raises(ValueError, match=r"model\.safetensors: \w+ is -?\d+") as error:
        load_run(tmp_path)
    assert "\n" not in str(error.value)


def test_a_header_that_claims_a_terabyte(tmp_path):
    path = tmp_path / "model.safetensors"
    header = json.dumps({"w": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ValueError, match="safetensors"):
        load_run(path)
    path.write_bytes(struct.pack("<Q", 2**62) + header)
    with pytest.raises(ValueError, match="safetensors"):
        load_run(path)


def test_a_mapping_within_itself_ends(tmp_path):
    found = {"model": {}}
    found["model"]["model"] = found
    torch.save(found, tmp_path / "loop.pt")
    with pytest.raises(ValueError, match="holds no weights"):
        read_weights(tmp_path / "loop.pt")


class Harm:
    def __reduce__(self):
        return (os.mkdir, (os.environ["HARM"],))


def test_a_pickle_does_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("HARM", str(tmp_path / "done"))
    for name, content in (("a.pt", pickle.dumps(Harm())), ("b.pt", None)):
        path = tmp_path / name
        path.write_bytes(content) if content else torch.save({"epoch": Harm()}, path)
        for read in (load_checkpoint, read_weights):
            with pytest.raises(ValueError, match=name):
                read(path)
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize(
    "text",
    ["data: {class_path: harm.Set}", "method: {class_path: harm.Set}", "model: !!python/name:harm.Set ''"],
)
def test_a_configuration_imports_nothing(text, tmp_path, monkeypatch, capsys):
    (tmp_path / "harm.py").write_text("raise SystemExit('imported')\n")
    (tmp_path / "file.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert cli.main(["train", "--config", "file.yaml", "--dry-run"]) == 2
    assert "harm" not in sys.modules
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", [*NAMES, "/etc/passwd", "a" * 5000])
def test_the_name_of_a_recipe_is_a_name(name, capsys):
    assert cli.main(["train", "--recipe", name, "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "\x1b" not in said


@pytest.mark.slow
def test_names_of_classes_are_text_everywhere(small, tmp_path, capsys):
    from bat_fast.data import Splits, from_arrays

    images = torch.randint(0, 256, (60, 8, 8, 1), dtype=torch.uint8)
    labels = torch.arange(60) % len(NAMES)
    part = from_arrays(images.numpy(), labels.numpy(), name="given", class_names=list(NAMES))
    out = tmp_path / "[red]run<b>"
    config = small(epochs=1, batch_size=20)
    Trainer(config, out, splits=Splits(part, part, part), progress=False).fit()
    lines = (out / "classes.txt").read_text().split("\n")
    assert len(lines) == len(NAMES) + 1
    assert "\x1b" not in "".join(lines)
    assert load_run(out)[1]["classes"] == list(NAMES), "they are kept as they are"
    assert {path.name for path in tmp_path.iterdir()} == {out.name}
    page = render([read_run(out, "A")])
    assert "<script>alert(1)" not in page
    assert "\x1b" not in capsys.readouterr().out
