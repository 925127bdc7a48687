"""Recipes: every one of them builds, without its data."""

import re

import pytest

from bat_fast.cli import main
from bat_fast.config import recipes

SYSTEMS = "standard pgd-at trades mart bat te trades-te hr hd fgsm-rs n-fgsm free bat-smooth".split()  # noqa: SIM905
NAMED = "#|  name: (cifar|tiny)"  # comments, and the line that may differ
QUICK = [name for name in recipes() if not name.startswith(("tiny-imagenet", "cifar100"))]


@pytest.mark.parametrize("data", ["digits", "cifar10", "cifar100", "tiny-imagenet", "imagenet"])
def test_there_is_a_recipe_for_every_system(data):
    assert {f"{data}-{system}" for system in SYSTEMS} <= set(recipes())


@pytest.mark.parametrize("name", QUICK)
def test_dry_run(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--recipe", name, "--dry-run", "--device", "cpu"]) == 0
    line = capsys.readouterr().out
    assert line.startswith("ok: ")
    assert line.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_recipes_differ_only_where_their_data_do():
    """What is not built above says the same as what is."""
    for data in ("cifar100", "tiny-imagenet"):
        for system in SYSTEMS:
            settings = [
                [x for x in recipes()[name].read_text().splitlines() if not re.match(NAMED, x)]
                for name in (f"cifar10-{system}", f"{data}-{system}")
            ]
            assert settings[0] == settings[1], (data, system)


def test_the_list(capsys):
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(recipes())
    for line, name in zip(lines, recipes(), strict=True):
        assert line.startswith(name)
        assert len(line.removeprefix(name).strip()) > 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.name", "cifar11"], "there is no data set 'cifar11'"),
        (["--model.name", "resnet"], "there is no model"),
        (["--method.beta", "-1"], "beta"),
        (["--optim.clip", "0"], "optim.clip"),
        (["--attack.eps", "-1"], "eps"),
    ],
)
def test_a_dry_run_finds_mistakes(words, message, capsys):
    assert main(["train", "--recipe", "cifar10-trades", "--dry-run", *words]) == 2
    assert message in capsys.readouterr().err


def test_data_that_are_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--recipe", "tiny-imagenet-trades"]) == 2
    assert "data.root is missing: the folder tiny-imagenet-200" in capsys.readouterr().err
    assert main(["train", "--recipe", "tiny-imagenet-trades", "--data.root", "nowhere"]) == 2
    assert "nowhere is not a folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
