"""The recipes that repeat published scripts hold to the values that are written down once."""

import re
from pathlib import Path

import pytest
import yaml

from bat_fast.cli import main
from bat_fast.cli.settings import read_command
from bat_fast.config import recipes
from bat_fast.config.published import published

TABLE = published()
PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


@pytest.mark.parametrize("name", TABLE.recipes)
def test_a_recipe_says_what_is_published_and_nothing_else(name, tmp_path):
    file = tmp_path / "published.yaml"
    file.write_text(yaml.safe_dump(dict(TABLE.recipes[name].settings)))
    assert read_command(["--recipe", name]).config == read_command(["--config", str(file)]).config


def test_every_published_recipe_is_in_the_table():
    assert {name for name in recipes() if name.endswith("-published")} == set(TABLE.recipes)
    for run in TABLE.recipes.values():
        assert run.ours in recipes()


@pytest.mark.parametrize("name", TABLE.recipes)
def test_the_header_names_repository_commit_and_lines(name):
    comments = [line.lstrip("# ") for line in recipes()[name].read_text().splitlines() if line[0] == "#"]
    header, run = " ".join(comments), TABLE.recipes[name]
    assert f"Source: {run.source}." in header
    assert re.match(r"[\w-]+/[\w-]+ [0-9a-f]{7}, .+\.\w+:\d", run.source)
    for gap in run.gaps:
        assert f"Not as published: {gap}." in header
    if run.reported:
        assert f"Reported: {run.reported}." in header


def test_what_has_no_script_has_no_recipe():
    for name, why in TABLE.none.items():
        assert f"{name}-published" not in recipes()
        assert len(why) > 10


def test_the_page_is_up_to_date(capsys):
    assert main(["recipes", "--markdown"]) == 0
    assert capsys.readouterr().out == PAGE.read_text(), "bat-fast recipes --markdown > docs/recipes.md"


def test_the_list_says_whose_settings_they_are(capsys):
    assert main(["recipes"]) == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert lines["cifar10-trades"][1] == "ours"
    assert lines["cifar10-trades-published"][1] == "published"
    assert {"reported:", "56.61"} <= set(lines["cifar10-trades-published"])
