"""The classes of image files: those that evaluation finds in the same files."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from bat_fast import data
from bat_fast.cli import main
from bat_fast.evaluate import load_run
from bat_fast.evaluate.predict import predict
from bat_fast.evaluate.saved import split_loader

pytestmark = pytest.mark.slow
_WORDS = [
    "--device",
    "cpu",
    "--epochs",
    "1",
    "--attack.steps",
    "1",
    "--eval.val_steps",
    "1",
    "--eval.test_steps",
    "1",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of images of two sizes, and a run on it."""
    root, chance = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name, shade in (("dark", 60), ("light", 190)):
        (root / name).mkdir()
        for number in range(40):
            size = (24, 18) if number % 2 else (16, 16)
            pixels = chance.normal(shade, 20, (*size, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    out = root / "run"
    words = ["--data", "image_folder", "--root", str(root), "--data.options.size", "16", "--eps", "1/255"]
    assert main(["train", *words, *_WORDS, "--data.loader", "torch", "--out", str(out)]) == 0
    return root, out


def test_they_are_those_of_evaluation(folder):
    root, out = folder
    model, saved = load_run(out)
    source = data.load("image_folder", seed=0, root=root, options=saved["data"]["options"]).test
    files = [root / source.images.names[row] for row in source.rows.tolist()]
    found = list(predict(out, files, top=2, device="cpu"))
    (batch,) = split_loader(saved, "test", 100, "cpu")
    shares = model(batch.x).double().softmax(1)
    for entry, row in zip(found, shares, strict=True):
        assert not entry["resized"]
        assert [c["name"] for c in entry["classes"]] == [
            ("dark", "light")[k] for k in row.argsort(descending=True)
        ]
        assert entry["classes"][0]["probability"] == pytest.approx(float(row.max()), abs=1e-3)  # DALI rounds


def test_a_file_is_opened_once(folder, monkeypatch):
    root, out = folder
    opened, how = [], Image.open
    monkeypatch.setattr(Image, "open", lambda file, *rest: opened.append(str(file)) or how(file, *rest))
    files = [str(root / "dark" / "0.png"), str(root / "light" / "1.png")]
    assert len(list(predict(out, files, device="cpu"))) == 2
    assert opened == files


def test_the_verb_prints_a_line_for_each(folder, capsys):
    root, out = folder
    files = [str(root / "dark" / "0.png"), str(root / "light" / "1.png")]
    capsys.readouterr()
    assert main(["predict", str(out), *files, "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == files
    assert main(["predict", str(out), *files, "--json", "--top", "2", "--device", "cpu"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(entry["probability"] for entry in rows[0]["classes"]) == pytest.approx(1)
    for words, message in (
        (["--top", "3"], "top must be in [1, 2], the classes there are, got 3"),
        ([str(root / "none.png")], "none.png: it does not exist"),
    ):
        assert main(["predict", str(out), *files, *words, "--device", "cpu"]) == 2
        assert message in capsys.readouterr().err


def test_where_all_images_had_one_size_others_are_resized_and_it_is_said(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", "--data", "digits", *_WORDS, "--out", str(out)]) == 0
    for size in (8, 20):
        Image.fromarray(np.full((size, size), 100, np.uint8)).save(tmp_path / f"{size}.png")
    small, large = predict(out, [tmp_path / "8.png", tmp_path / "20.png"], device="cpu")
    assert (small["resized"], large["resized"]) == (False, True)
    assert small["classes"] == large["classes"]
    model, _ = load_run(out)
    share = model(torch.full((1, 1, 8, 8), 100 / 255)).softmax(1).max()
    assert small["classes"][0]["probability"] == pytest.approx(float(share), abs=1e-5)
    capsys.readouterr()
    assert main(["predict", str(out), str(tmp_path / "20.png"), "--device", "cpu"]) == 0
    assert "(resized to that of the training images)" in capsys.readouterr().out


def test_a_logit_without_a_class_has_a_number(tmp_path):
    out = tmp_path / "run"
    assert main(["train", "--data", "digits", *_WORDS, "--model.num_classes", "12", "--out", str(out)]) == 0
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    (found,) = predict(out, [tmp_path / "a.png"], top=12, device="cpu")
    assert {"output 10", "output 11", "0"} <= {entry["name"] for entry in found["classes"]}
