"""Help: everything is described, the page in docs/ is the code's, and none of it waits for torch."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from bat_fast import methods
from bat_fast.cli import main
from bat_fast.cli.catalogue import ALIASES, data_names, find, groups, method_names, own_methods, types
from bat_fast.cli.manual import markdown
from bat_fast.data import names
from bat_fast.methods.options import convert

ROOT = Path(__file__).parents[2]


def test_the_page_of_settings_is_that_of_the_code():
    page = (ROOT / "docs" / "settings.md").read_text()
    assert page == markdown(), "bat-fast help --markdown > docs/settings.md"


def test_every_setting_and_every_option_is_described():
    described = [setting for group in groups() for setting in group.settings]
    assert [setting for setting in described if not setting.text] == []
    assert {setting.name for setting in described} >= set(types())
    for group in groups():
        assert group.text


def test_the_sources_say_what_the_classes_are():
    """Methods are read without importing them; here the two are compared."""
    assert list(own_methods()) == list(methods._own())
    for name, kind in methods._own().items():
        fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
        found = {setting.name.removeprefix("method."): setting for setting in find(name)[0].settings}
        assert found.keys() == fields.keys()
        for option, setting in found.items():
            default = getattr(kind(), option)
            written = setting.default if default != {} else {}
            assert convert(name, kind, {option: written})[option] == default
    assert method_names()[: len(own_methods())] == methods.names()[: len(own_methods())]
    assert data_names() == names()


def test_train_help(capsys):
    with pytest.raises(SystemExit) as left:
        main(["train", "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    for name in types():
        assert f"--{name}\n" in text
    for line in ("optim: How the weights move", "Method trades:", "--method.temperature", "--dry-run"):
        assert line in text
    assert "TrainConfig(" not in text
    assert max(map(len, text.splitlines())) <= 110


def test_help_of_a_setting(capsys):
    assert main(["help", "optim.milestones"]) == 0
    text = capsys.readouterr().out
    for line in ("multistep", "a list of numbers", "or epochs above 1", "[0.5, 0.75]"):
        assert line in text
    for short, name in ALIASES.items():
        assert main(["help", short]) == 0
        text = capsys.readouterr().out
        assert text.startswith(name)
        assert f"--{short}" in text


def test_help_of_a_group_and_of_a_method(capsys):
    assert main(["help", "data.augment", "trades"]) == 0
    text = capsys.readouterr().out
    assert "data.augment.rand_augment" in text
    assert "method.beta" in text
    assert main(["help", "method.beta"]) == 0
    text = capsys.readouterr().out
    for method in ("bat", "mart", "trades"):
        assert f"Method {method}: " in text
    assert "method.alpha" not in text
    assert main(["help"]) == 0
    assert "usage: bat-fast help" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"bat-fast {sys.modules['bat_fast'].__version__}\n"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ([], 2),
        (["--help"], 0),
        (["--version"], 0),
        (["recipes"], 0),
        (["trian"], 2),
        (["train", "--help"], 0),
        (["train", "--attack.stepz", "3"], 2),
        (["train", "--recipe", "digits-bt"], 2),
        (["train", "--method", "trade"], 2),
        (["train", "--optim.momentum", "5"], 2),
        (["train", "--recipe", "digits-bat", "--print_config"], 0),
        (["help", "eps"], 0),
        (["eval", "nowhere", "--spilt", "test"], 2),
        (["bench", "--secnds", "3"], 2),
        (["info", "--jsno"], 2),
    ],
    ids=str,
)
def test_help_and_typos_do_not_wait_for_torch(words, status):
    program = (
        "import sys; from bat_fast.cli import main\n"
        f"try: status = main({words!r})\n"
        "except SystemExit as left: status = left.code\n"
        "print(status, *[name for name in ('torch', 'numpy', 'timm', 'matplotlib') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == str(status)
