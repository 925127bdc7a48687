import json

import pytest

from bat_fast.cli import main
from bat_fast.train import Trainer


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    Trainer(small(epochs=1), out, progress=False).fit()
    return out


def test_a_page_in_the_run_folder(run, capsys):
    assert main(["report", str(run), "--images", "20", "--device", "cpu"]) == 0
    assert str(run / "report.html") in capsys.readouterr().out
    text = (run / "report.html").read_text()
    assert "Measured on 20 of 359 test images under PGD-3" in text
    assert f"bat-fast report {run} --images 20 --device cpu" in text


def test_a_model_that_cannot_be_had_leaves_the_rest(run, tmp_path, capsys):
    results = json.loads((run / "results.json").read_text())
    model = run / "model.safetensors"
    model.rename(tmp_path / "away")
    try:
        assert main(["report", str(run), "--out", str(tmp_path / "r.html"), "--device", "cpu"]) == 0
    finally:
        (tmp_path / "away").rename(model)
    assert "WARNING" in capsys.readouterr().out
    text = (tmp_path / "r.html").read_text()
    assert "Not examined: " in text
    assert f"{100 * results['metrics']['test/pgd3_acc']:.1f} %" in text


def test_nothing_is_measured_with_no_images(run, tmp_path):
    out = tmp_path / "r.html"
    assert main(["report", str(run), "--images", "0", "--out", str(out)]) == 0
    assert "Not examined: --images 0" in out.read_text()


def test_bad_input_is_one_line(run, tmp_path, capsys):
    for words, text in (
        ([str(tmp_path)], "no run folder"),
        ([str(run), str(run / ".")], "named twice"),
        ([str(run), "--out", str(tmp_path)], "is a folder"),
        ([str(run), "--images", "-1"], "--images"),
        ([str(run), "--imges", "1"], "did you mean --images?"),
    ):
        assert main(["report", *words]) == 2
        error = capsys.readouterr().err
        assert text in error
        assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
