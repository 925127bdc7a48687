import dataclasses
import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from bat_fast.config import AttackConfig, Ratio, TrainConfig
from bat_fast.runs.folder import RunFolder
from bat_fast.runs.plain import plain

CONFIG = TrainConfig(attack=AttackConfig(eps=Ratio("8/255"), step_size=Ratio("0.5")))


def test_config_keeps_fractions(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.open(CONFIG, resume=False)
    stored = yaml.safe_load(folder.config.read_text())
    assert stored == plain(CONFIG)
    assert stored["attack"]["eps"] == "8/255"
    assert stored["attack"]["step_size"] == 0.5
    assert "eps: 8/255" in folder.config.read_text()
    json.dumps(stored)


def test_refuses_a_folder_with_something_in_it(tmp_path):
    (tmp_path / "precious").write_text("x")
    with pytest.raises(FileExistsError, match=r"--resume.*--out"):
        RunFolder(tmp_path).open(CONFIG, resume=False)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    with pytest.raises(FileExistsError, match="is a file"):
        RunFolder(tmp_path / "precious").open(CONFIG, resume=False)


def test_an_empty_folder_is_fine(tmp_path):
    RunFolder(tmp_path).open(CONFIG, resume=False)
    assert RunFolder(tmp_path).config.exists()


def test_resume_names_the_first_difference(tmp_path):
    RunFolder(tmp_path).open(CONFIG, resume=False)
    RunFolder(tmp_path).open(CONFIG, resume=True)
    RunFolder(tmp_path).open(dataclasses.replace(CONFIG, device="cpu"), resume=True)
    other = dataclasses.replace(CONFIG, attack=AttackConfig(eps=Ratio("4/255"), steps=3))
    with pytest.raises(ValueError, match=r"attack\.eps was '8/255' and is now '4/255'"):
        RunFolder(tmp_path).open(other, resume=True)
    method = dataclasses.replace(CONFIG, method={"name": "bat", "alpha": 2})
    with pytest.raises(ValueError, match=r"method\.alpha was None and is now 2"):
        RunFolder(tmp_path).open(method, resume=True)


def test_metrics_lose_a_partial_line_and_later_epochs(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.rows() == []
    for epoch in (1, 2, 3):
        folder.append({"epoch": epoch, "train/loss": 0.1 * epoch})
    with folder.metrics.open("a") as file:
        file.write('{"epoch": 4, "train/lo')
    assert [row["epoch"] for row in folder.rows()] == [1, 2, 3]
    folder.write_rows(folder.rows()[:2])
    assert folder.metrics.read_text().count("\n") == 2
    assert [row["epoch"] for row in folder.rows()] == [1, 2]


def test_lines_are_json_even_with_nan(tmp_path):
    folder = RunFolder(tmp_path)
    folder.append({"epoch": 1, "train/odd": math.nan})
    assert json.loads(folder.metrics.read_text()) == {"epoch": 1, "train/odd": None}


def test_default_path():
    assert RunFolder.default_path("digits-bat", 3).match("runs/digits-bat-*-*-s3")


def test_runs_that_begin_at_one_moment_get_a_folder_each(tmp_path):
    path = tmp_path / "runs" / "name"
    folders = [RunFolder(path, numbered=True) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda folder: folder.open(CONFIG, resume=False), folders))
    names = ["name", *(f"name-{number}" for number in range(2, 9))]
    assert sorted(folder.path.name for folder in folders) == sorted(names)
    for folder in folders:
        assert folder.config.exists()
        assert folder.best.parent.parent == folder.path


def test_a_named_folder_is_not_numbered(tmp_path):
    RunFolder(tmp_path / "name").open(CONFIG, resume=False)
    with pytest.raises(FileExistsError, match="not empty"):
        RunFolder(tmp_path / "name").open(CONFIG, resume=False)
