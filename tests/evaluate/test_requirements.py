"""What users of other evaluations complain about, where no other test holds it: see docs/evaluation.md."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from bat_fast.attacks import AutoAttack
from bat_fast.evaluate.judge import evaluate_model
from bat_fast.evaluate.verdicts import notes_of
from bat_fast.ratio import Ratio

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore:bat_fast. attacks on")


class Counted(nn.Module):
    """A linear model that remembers how many images it was given at once."""

    def __init__(self, classes=10):
        super().__init__()
        self.layer, self.sizes = nn.Linear(16, classes), []

    def forward(self, x):
        return self.layer(x.flatten(1))

    def __call__(self, x):
        self.sizes.append(len(x))
        return super().__call__(x)


def images(model, n=30):
    x = torch.rand(n, 1, 4, 4)
    with torch.no_grad():
        return x, model(x).argmax(1)


def test_every_requirement_has_a_test_that_exists():
    text = (ROOT / "docs" / "evaluation.md").read_text()
    table = text.partition("## What goes wrong elsewhere")[2].partition("## ")[0]
    rows = re.findall(r"^\| ([\d, ]+) \|.*\| (.*) \|$", table, re.MULTILINE)
    assert sorted(int(number) for numbers, _ in rows for number in numbers.split(", ")) == [*range(1, 26)]
    for numbers, named in rows:
        file = ""
        for one in re.findall(r"`([^`]+)`", named):
            file, _, name = one.partition("::") if not one.startswith("::") else (file, "", one[2:])
            assert f"def {name}(" in (ROOT / "tests" / file).read_text() or not name, numbers


def test_each_part_alone_on_all_images():
    model = Counted()
    found = evaluate_model(model, [images(model)], ["aa-quick", "apgd-ce", "fgsm"], eps=0.1)["metrics"]
    assert found["test/worst_acc"] <= min(found["test/aa_quick_acc"], found["test/apgd_ce_acc"])
    assert found["test/clean_acc"] == 1


def test_passes_do_not_grow_with_the_classes():
    passes = []
    for classes in (12, 200):
        model = Counted(classes)
        x, y = images(model, 4)
        attack = AutoAttack(model, 1e-6, engine="eager")  # nothing breaks
        attack.parts = {name: part for name, part in attack.parts.items() if name != "square"}
        vars(attack.parts["apgd-t"]).update(steps=3)
        vars(attack.parts["apgd-ce"]).update(steps=3)
        vars(attack.parts["fab-t"]).update(steps=3)
        model.sizes.clear()
        assert sum(attack.judge(x, y).robust) == 4
        passes.append(len(model.sizes))
    assert passes[0] == passes[1] > 0


def test_no_pass_is_larger_than_the_batch():
    model = Counted()
    x, y = images(model, 50)
    model.sizes.clear()
    evaluate_model(model, [(x, y)], ["pgd2", "aa-quick"], eps=0.05, batch_size=8)
    assert max(model.sizes) == 8


def test_a_result_says_what_it_is_about():
    model = Counted()
    found = evaluate_model(
        model, [images(model)], ["aa-quick"], eps=[Ratio("2/255"), Ratio("8/255")], seed=7, n=20
    )
    said = json.loads(json.dumps(found))
    assert said["attack"] == {
        "norm": "linf", "eps": 8 / 255, "mode": "quick", "version": "standard", "seed": 7,
    }  # fmt: skip
    assert said["n_examples"] == 20
    assert [row["written"] for row in said["curve"]] == ["2/255", "8/255"]


@pytest.mark.parametrize("attack", ["aa", "aa-quick", "pgd2", "square"])
def test_a_model_that_is_always_wrong(attack):
    model = Counted()
    x, y = images(model, 5)
    found = evaluate_model(model, [(x, (y + 1) % 10)], [attack], eps=0.1)
    assert set(found["metrics"].values()) == {0.0}


def test_verdicts_that_do_not_repeat_are_counted():
    class Moody(Counted):
        def forward(self, x):
            return super().forward(x).roll(len(self.sizes) % 2, 1)

    model = Moody()
    found = evaluate_model(model, [images(model, 20)], ["aa-quick"], eps=0.01)
    assert any("are others in a second pass of the same images" in note for note in found["notes"])


def test_the_constants_are_the_official_ones():
    parts = AutoAttack(nn.Linear(4, 10)).parts
    assert [*parts] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    steps = [parts[name].steps for name in ("apgd-ce", "apgd-t", "fab-t")]
    assert [*steps, parts["square"].queries] == [100, 100, 100, 5000]
    assert [part.restarts for part in parts.values()] == [1, 1, 1, 1]
    assert [parts[name].targets for name in parts] == [0, 9, 9, 0]
    assert (parts["apgd-ce"].loss, parts["apgd-t"].loss) == ("ce", "dlr")


def test_a_gap_between_losses_is_a_warning():
    assert "logits may be scaled" in notes_of({"clean": 138, "apgd-ce": 0, "apgd-t": 172}, 1000, 10)[0]
