import copy
import dataclasses
import pickle

import pytest
import yaml

from bat_fast.cli.settings import read_command
from bat_fast.config import AttackConfig, Ratio, TrainConfig, recipes
from bat_fast.runs.plain import plain


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
    assert read_command(["--method.name", "pgd_at", "--seed", "7"]).out.match("runs/pgd_at-*-*-s7")


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


def written(folder, text):
    path = folder / "settings.yaml"
    path.write_text(text)
    return str(path)


def test_a_name_alone(tmp_path):
    given = config("--method", "TRADES", "--model", "timm:resnet18", "--data", "tiny-imagenet")
    assert given.method == {"name": "trades"}
    assert given.model.name == "timm:resnet18"
    assert given.data.name == "tiny_imagenet"
    text = "method: trades\nmodel: timm:resnet18\ndata: tiny-imagenet\n"
    assert config("--config", written(tmp_path, text)) == given


def test_a_name_alone_keeps_the_rest_of_its_group():
    recipe = config("--recipe", "cifar10-bat")
    given = config("--recipe", "cifar10-bat", "--data", "cifar100", "--method", "bat")
    assert given.data == dataclasses.replace(recipe.data, name="cifar100")
    assert given.method == recipe.method
    assert config("--recipe", "cifar10-bat", "--method.beta", "3", "--method", "trades").method == {
        "name": "trades",
        "beta": 3,
    }


def test_short_names(tmp_path):
    given = config("--lr", "1/4", "--eps", "4/255", "--steps", "3", "--root", "somewhere")
    assert given.optim.lr == 0.25
    assert given.attack == AttackConfig(eps=Ratio("4/255"), steps=3)
    assert given.data.root == "somewhere"
    text = "lr: 1/4\neps: 4/255\nsteps: 3\nroot: somewhere\n"
    assert config("--config", written(tmp_path, text)) == given


def test_dashes_are_underscores():
    assert config("--batch-size", "7", "--data.on-corrupt=SKIP").batch_size == 7


def test_milestones_in_many_ways():
    expected = config("--optim.milestones", "[0.5, 0.9]")
    for text in ("0.5,0.9", "0.5, 0.9", "(0.5,0.9)", "[1/2, 9/10]"):
        assert config("--optim.milestones", text) == expected
    for words in (["0.5", "0.9"], ["[0.5,", "0.9]"], ["0.5,", "9/10"]):
        assert config("--optim.milestones", *words, "--epochs", "100") == config(
            "--optim.milestones", "[0.5, 0.9]", "--epochs", "100"
        )


def test_epochs_are_recorded_as_written():
    given = config("--optim.milestones", "[75, 90]", "--optim.warmup", "5")
    assert given.optim.milestones == (75.0, 90.0)
    assert given.optim.warmup == 5.0


def test_groups_options_and_their_files(tmp_path):
    (tmp_path / "attack.yaml").write_text("eps: 5/255\n")
    first = tmp_path / "first.yaml"
    first.write_text("attack: attack.yaml\ndata: {options: {val: 5, size: 3}}\n")
    whole = written(tmp_path, "config: first.yaml\nattack.steps: 4\n")
    given = config("--config", whole, "--data.options.val", "1e-3")
    assert given.attack == AttackConfig(eps=Ratio("5/255"), steps=4)
    assert given.data.options == {"val": 0.001, "size": 3}
    assert config("--config", whole, "--data.options", "{val: 3}").data.options == {"val": 3}
    assert config("--attack", "{eps: 5/255, steps: 4}").attack == given.attack
    assert config("--attack", str(tmp_path / "attack.yaml"), "--steps", "4").attack == given.attack
    assert config("--config", "{epochs: 5}").epochs == 5


def test_options_of_a_method_without_its_name_go_to_the_one_there_is(tmp_path):
    file = written(tmp_path, "method: {alpha: 3}\n")
    assert config("--recipe", "digits-bat", "--config", file).method["name"] == "bat"
    assert config("--config", file, "--method", "{beta: 0}").method == {"name": "bat", "alpha": 3, "beta": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim: {momentumm: 1}", r"there is no setting optim\.momentumm; did you mean optim\.momentum\?"),
        ("optim: {momentum: 5}", r"optim\.momentum must be in \[0, 1\), got 5"),
        ("optim: {lr: big}", r"optim\.lr must be a number, got 'big'"),
        ("epochs: null", "epochs must be a whole number, got None"),
        ("attack: null", "attack must be settings"),
        ("attack: nowhere.yaml", "attack must be settings, .*or their file"),
        ("method: trade", r"there is no method 'trade'; .*did you mean trades\?"),
        ("method: {name: bat, alhpa: 1}", r"method bat has no option 'alhpa'; .*did you mean alpha\?"),
        ("data: cifar", "there is no data set 'cifar'"),
        ("out: here", "out is no setting of a file; say --out on the command line"),
        ("epochs: [", "this is no YAML"),
        ("[1, 2]", "this is no list of settings"),
        ("learning_rate: 1", "there is no setting learning_rate"),
        ("method: 3", "method must be names with values"),
        ("config: nowhere.yaml", "config: there is no file nowhere"),
        ("config: settings.yaml", "config: .* would be read within itself"),
    ],
)
def test_errors_of_a_file_name_it(text, message, tmp_path):
    path = written(tmp_path, text)
    with pytest.raises((ValueError, OSError), match=f"^{path}: {message}") as error:
        config("--config", path)
    assert "\n" not in str(error.value)


def test_later_words_hide_the_mistakes_of_no_file(tmp_path):
    path = written(tmp_path, "optim: {momentum: 5}")
    assert config("--config", path, "--optim.momentum", "0.5").optim.momentum == 0.5
    with pytest.raises(ValueError, match=r"^optim\.momentum"):  # the command line said it
        config("--config", path, "--optim.momentum", "6")


def test_print_config_without_the_defaults(capsys):
    with pytest.raises(SystemExit):
        config("--eps", "4/255", "--method", "trades", "--print_config=skip_default")
    assert yaml.safe_load(capsys.readouterr().out) == {
        "attack": {"eps": "4/255"},
        "method": {"name": "trades"},
    }
