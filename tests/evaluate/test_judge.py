"""Several attacks and radii together: what the names, intervals and tables say."""

import json

import pytest
import torch

from bat_fast.cli import main
from bat_fast.evaluate.attacks import make_attack
from bat_fast.evaluate.judge import evaluate_model
from bat_fast.runs.metrics import title
from bat_fast.runs.proportion import wilson
from bat_fast.train import Trainer


class Threshold(torch.nn.Module):
    """Class 1 where the only pixel is above 0.5."""

    def forward(self, x):
        score = 10 * (x.flatten(1) - 0.5)
        return torch.cat([-score, score], 1)


def nan_at_zero(x):
    """The same, but NaN where the pixel is 0."""
    return Threshold()(x) * x.flatten(1) / x.flatten(1)


def pixels(*values):
    return torch.tensor(values).view(-1, 1, 1, 1)


X, Y = pixels(0.9, 0.55, 0.1, 0.45, 0.9, 0.7), torch.tensor([1, 1, 0, 0, 0, 1])


def test_counts_by_hand():
    found = evaluate_model(
        Threshold(), [(X, Y)], ["pgd9", "fgsm"], eps=[0.1, 0.3, 0.02], per_class=True, classes=("low", "high")
    )
    assert [row["written"] for row in found["curve"]] == ["0.02", "0.1", "0.3"]
    curve = [row["metrics"]["test/pgd9_acc"] * 6 for row in found["curve"]]
    assert curve == pytest.approx([5, 3, 2])
    assert found["metrics"] == found["curve"][-1]["metrics"]
    assert found["metrics"]["test/worst_acc"] <= min(found["metrics"].values())
    for name, value in found["metrics"].items():
        assert found["intervals"][name] == list(wilson(value, 6))
    assert found["per_class"]["classes"] == ["low", "high"]
    assert found["per_class"]["n_examples"] == [3, 3]
    assert found["per_class"]["test/clean_acc"] == pytest.approx([2 / 3, 1])
    assert found["confusion"]["test/clean_acc"] == [[2, 1], [0, 3]]
    assert found["attack"] == {"norm": "linf", "eps": 0.3, "step_size": 0.3 / 4, "steps": 9}


def test_an_answer_that_is_no_number_is_wrong():
    found = evaluate_model(nan_at_zero, [(pixels(0.0, 0.1), torch.tensor([0, 0]))], ["clean"], per_class=True)
    assert found["metrics"] == {"test/clean_acc": 0.5}
    assert "NaN for 1 of 2 images" in found["notes"][0]
    assert found["confusion"]["test/clean_acc"] == [[1]]


def test_options_reach_the_attacks_that_take_them():
    found = evaluate_model(
        Threshold(),
        [(X, Y)],
        ["pgd4", "apgd-ce", "square"],
        eps=0.1,
        loss="margin",
        restarts=2,
        step_size=0.03,
        n=3,
    )["attacks"]
    assert found["pgd4"] == {"norm": "linf", "eps": 0.1, "step_size": 0.03, "steps": 4, "restarts": 2}
    assert found["apgd_ce"]["restarts"] == found["square"]["restarts"] == 2


def test_names_of_attacks():
    attack = make_attack("pgd7x3", Threshold(), eps=0.2)
    assert (attack.steps, attack.restarts) == (7, 3)
    towards = make_attack("apgd_t", Threshold(), eps=0.2)
    assert (towards.targets, towards.loss) == (9, "dlr")
    assert make_attack("aa-quick", Threshold(), eps=0.2).mode == "quick"
    published = make_attack("pgd50x10-any", Threshold(), eps=0.2, step_size=0.05)
    assert (published.steps, published.restarts, published.any_step) == (50, 10, True)
    own = make_attack("pgd20-step0.003-targeted", Threshold(), eps=0.2, step_size=0.05)
    assert (own.step_size, own.targeted, own.any_step) == (0.003, True, False)


def test_attacks_as_published_have_names_of_their_own():
    names = ["pgd2", "pgd2-step0.003", "pgd2x2-any", "pgd2-targeted"]
    found = evaluate_model(Threshold(), [(X, Y)], names, eps=0.1, step_size=0.02)
    assert {f"test/{name.replace('-', '_')}_acc" for name in names} <= set(found["metrics"])
    assert found["attacks"]["pgd2_step0.003"]["step_size"] == 0.003
    assert found["attacks"]["pgd2"] == {"norm": "linf", "eps": 0.1, "step_size": 0.02, "steps": 2}
    assert found["attacks"]["pgd2x2_any"] == found["attacks"]["pgd2"] | {"restarts": 2, "any_step": True}
    assert found["metrics"]["test/pgd2x2_any_acc"] <= found["metrics"]["test/pgd2_acc"]
    assert title("pgd50x10_any") == "PGD-50, 10 starts, any step"
    assert title("pgd20_step0.003") == "PGD-20, step 0.003"
    assert title("pgd20_targeted") == "PGD-20, targeted"


@pytest.mark.parametrize(
    ("attacks", "options", "text"),
    [
        (["aa"], {"loss": "ce"}, "loss: of the attacks aa none takes it"),
        (["fgsm"], {"step_size": 0.1}, "step_size: of the attacks fgsm none takes it"),
        (["fgsm20"], {}, "its own number of steps"),
        (["square-any"], {}, "square has no any_step, so leave it out"),
        (["pgd2-step0.003"], {"step_size": 0.1}, "step_size: of the attacks pgd2-step0.003 none takes it"),
        (["pdg20"], {}, "did you mean pgd"),
        (["pgd2"], {"eps": []}, "eps: say one radius"),
        (["pgd2"], {"per_sample": "a.csv"}, "verdicts of AutoAttack at one radius"),
        (["pgd2"], {"n": 0}, "n must be at least 1"),
    ],
)
def test_errors(attacks, options, text):
    with pytest.raises(ValueError, match=text):
        evaluate_model(Threshold(), [(X, Y)], attacks, **options)


def test_more_starts_are_no_weaker_and_a_seed_is_a_seed():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3)
    )
    x, y = torch.rand(60, 1, 4, 4), torch.randint(3, (60,))
    one, same, many = (
        evaluate_model(model, [(x, y)], [name], eps=0.1, seed=3)["metrics"]
        for name in ("pgd3", "pgd3", "pgd3x8")
    )
    assert one == same
    assert many["test/pgd3x8_acc"] <= one["test/pgd3_acc"]


def test_the_command(tmp_path, small, capsys):
    out = tmp_path / "run"
    Trainer(small(epochs=1), out, progress=False).fit()
    capsys.readouterr()
    file = tmp_path / "results.json"
    words = ["eval", str(out), "--attack", "pgd3", "apgd-t", "--eps", "2/255", "8/255", "--n", "60"]
    assert main([*words, "--loss", "margin", "--per_class", "--out", str(file), "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    for text in ("PGD-3", "APGD-T", "worst of all", "eps 2/255", "95 % interval", "class"):
        assert text in shown
    stored = json.loads(file.read_text())
    assert stored["model"] == str(out)
    assert set(stored["metrics"]) == {f"test/{name}_acc" for name in ("clean", "pgd3", "apgd_t", "worst")}
    assert set(stored["intervals"]) == set(stored["metrics"])
    assert main(["eval", str(out), "--out", str(tmp_path / "nowhere" / "a.json")]) == 2
    assert "there is no folder" in capsys.readouterr().err
