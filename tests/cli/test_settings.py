import copy
import dataclasses
import pickle

import pytest
import yaml

from bat_fast.cli.settings import read_command
from bat_fast.config import AttackConfig, Ratio, TrainConfig, recipes
from bat_fast.runs.folder import plain


def config(*arguments):
    return read_command([*arguments, "--out", "unused"]).config


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), ("0.5", 0.5), (" 1/ 4", 0.25), ("1e-3", 1e-3)]
)
def test_ratio(text, value):
    ratio = Ratio(text)
    assert ratio == value
    assert str(ratio) == text.strip()
    for copied in (copy.deepcopy(ratio), pickle.loads(pickle.dumps(ratio)), Ratio(str(ratio))):
        assert copied == ratio
        assert copied.text == ratio.text


@pytest.mark.parametrize("text", ["", "a", "1/0", "1/2/3", "1/", "/2"])
def test_what_is_no_ratio(text):
    with pytest.raises(ValueError, match="a number or a fraction such as 8/255"):
        Ratio(text)


def test_defaults_and_overrides():
    assert config() == TrainConfig()
    given = config("--attack.eps", "4/255", "--optim.milestones", "[0.3, 0.6]", "--epochs=3")
    assert given.attack == AttackConfig(eps=Ratio("4/255"))
    assert given.attack.eps.text == "4/255"
    assert given.optim.milestones == (0.3, 0.6)
    assert given.epochs == 3


@pytest.mark.parametrize("eps", ["8/255", "0.15"])
def test_what_a_run_stores_loads_back(tmp_path, eps):
    given = config("--attack.eps", eps, "--attack.step_size", "2/255", "--method.alpha", "1/2", "--seed", "3")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(plain(given), sort_keys=False))
    assert config("--config", str(path)) == given
    assert plain(config("--config", str(path))) == plain(given)


def test_there_are_recipes():
    assert {"digits-bat", "digits-pgd-at", "digits-standard"} <= set(recipes())


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_loads_and_round_trips(name, tmp_path):
    given = config("--recipe", name)
    assert recipes()[name].read_text().startswith("# ")
    stored = tmp_path / "config.yaml"
    stored.write_text(yaml.safe_dump(plain(given)))
    assert config("--config", str(stored)) == given


def test_method_options_merge_into_those_of_the_recipe():
    recipe = config("--recipe", "digits-bat").method
    merged = config("--recipe", "digits-bat", "--method.alpha", "0.25").method
    assert merged == recipe | {"alpha": 0.25}
    assert config("--method.alpha", "0.25", "--recipe", "digits-bat").method == merged  # files come first
    assert config("--recipe", "digits-bat", "--method.name", "bat").method == recipe


def test_another_method_drops_the_options_of_the_recipe():
    assert config("--recipe", "digits-bat", "--method.name", "pgd_at").method == {"name": "pgd_at"}
    given = config("--recipe=digits-pgd-at", "--method.alpha=2", "--method.name=bat").method
    assert given == {"name": "bat", "alpha": 2}


def test_a_file_on_top_of_a_recipe(tmp_path):
    (tmp_path / "more.yaml").write_text("attack: {steps: 3}\n")
    given = config("--config", str(tmp_path / "more.yaml"), "--recipe", "digits-bat")
    recipe = config("--recipe", "digits-bat")
    assert given == dataclasses.replace(recipe, attack=dataclasses.replace(recipe.attack, steps=3))


def test_names_and_folders():
    assert read_command(["--recipe", "digits-bat"]).out.match("runs/digits-bat-*")
    assert read_command(["--method.name", "pgd_at"]).out.match("runs/pgd_at-*")


def test_resume_reads_the_configuration_of_the_run(tmp_path):
    (tmp_path / "config.yaml").write_text("epochs: 7\nattack: {eps: 3/255}\n")
    command = read_command(["--resume", "--out", str(tmp_path)])
    assert command.resume
    assert command.out == tmp_path
    assert command.config.epochs == 7
    assert command.config.attack.eps.text == "3/255"


def test_resume_needs_a_run(tmp_path):
    with pytest.raises(ValueError, match="--resume needs --out"):
        read_command(["--resume"])
    with pytest.raises(FileNotFoundError, match="no run to resume"):
        read_command(["--resume", "--out", str(tmp_path)])
