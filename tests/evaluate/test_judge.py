"""Several attacks and radii together: what the names, intervals and tables say."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from bat_fast.attacks import PGD
from bat_fast.batch import Batch
from bat_fast.cli import main
from bat_fast.evaluate.attacks import make_attack, spelled
from bat_fast.evaluate.judge import evaluate_model
from bat_fast.runs.metrics import title
from bat_fast.runs.proportion import wilson
from bat_fast.runs.sealed_tensors import check_tensors
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
    assert found["pgd4"] == {"norm": "linf", "eps": 0.1, "step_size": 0.03, "steps": 4} | {
        "loss": "margin",
        "restarts": 2,
    }
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


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("PGD-20", "pgd20"),
        ("pgd_20", "pgd20"),
        ("APGD-CE", "apgd-ce"),
        ("apgd_t", "apgd-t"),
        ("AutoAttack", "aa"),
        ("autoattack", "aa"),
        ("quick", "aa-quick"),
        ("Clean", "clean"),
        ("FGSM", "fgsm"),
        ("pgd50x10_any", "pgd50x10-any"),
    ],
)
def test_a_name_in_any_spelling(written, name):
    assert spelled(written) == spelled(name) == name
    assert spelled(title(name.replace("-", "_"))) == name  # as tables show it


def test_what_a_table_shows_is_a_name_again():
    for name in (
        "pgd50x10-any",
        "pgd20-step0.003",
        "pgd7x2-targeted-any",
        "aa-quick",
        "aa-plus",
        "fab-t",
        "square",
    ):
        assert spelled(title(name.replace("-", "_"))) == name
    for wrong in ("clean20", "PGD-3, dlr loss", "worst of all"):
        with pytest.raises(ValueError, match="there is no attack"):
            spelled(wrong)
    with pytest.raises(ValueError, match="'clean' is no attack"):
        make_attack("clean", Threshold())


def test_one_name_and_text_for_numbers():
    found = evaluate_model(Threshold(), [(X, Y)], "PGD-4", eps="1/10", step_size="3/100", norm="Linf")
    same = evaluate_model(Threshold(), [(X, Y)], ["pgd4"], eps=[0.1], step_size=0.03, loss="ce")
    assert found == same
    assert found["attack"]["norm"] == "linf"
    assert evaluate_model(Threshold(), [(X, Y)], "pgd4", loss="margin")["attack"]["loss"] == "margin"


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
        ("pgd2", {"eps": 8}, "eps must be .*write 8/255"),
        ("clean", {"eps": 8}, "eps must be .*write 8/255"),
        ("pgd2", {"step_size": 2}, "step_size must be .*write 2/255"),
        ("pgd2", {"eps": "8/x"}, "eps must be a number or a fraction"),
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


def test_calibration_by_hand():
    """All answers with a confidence of 0.8; two of three are right, and one under the attack."""

    def model(x):
        score = 0.5 * torch.tensor(0.8 / 0.2).log() * torch.where(x.flatten(1) > 0.5, 1.0, -1.0)
        return torch.cat([-score, score], 1)

    found = evaluate_model(model, [(pixels(0.9, 0.1, 0.9), torch.tensor([1, 0, 0]))], ["clean"], eps=0.1)
    assert found["calibration"] == {"test/clean_acc": pytest.approx(0.8 - 2 / 3)}
    under = evaluate_model(Threshold(), [(X, Y)], ["pgd9"], eps=0.1)["calibration"]
    assert set(under) == {"test/clean_acc", "test/pgd9_acc"}


def test_typical_and_atypical_images(tmp_path):
    file, index = tmp_path / "scores.npz", torch.arange(6)
    scores = {"tr_labels": Y.numpy(), "tr_mem": np.array([0.0, 0.9, 0.1, 0.2, 0.15, 0.0])}
    influence = {
        "infl_matrix_class0": np.array([[0.0, 0.3, 0.1], [0.2, 0.0, 0.0]]),
        "tt_classidx_0": [2, 3, 4],
    }
    influence |= {"infl_matrix_class1": np.array([[0.1, 0.0, 0.5]]), "tt_classidx_1": [0, 1, 5]}
    np.savez(file, tt_labels=Y.numpy(), **scores, **influence)

    def parted(split, **more):
        data = [Batch(X, Y, index)]
        return evaluate_model(Threshold(), data, ["fgsm"], eps=0.1, split=split, mem_scores=file, **more)[
            "memorised"
        ]

    found = parted("train")
    assert found["threshold"] == 0.15
    assert (found["typical"]["n_examples"], found["atypical"]["n_examples"]) == (4, 2)
    assert found["typical"]["metrics"] == {"train/clean_acc": 0.75, "train/fgsm_acc": 0.75}
    assert found["atypical"]["metrics"] == {"train/clean_acc": 1.0, "train/fgsm_acc": 0.0}
    assert found["atypical"]["intervals"]["train/clean_acc"] == list(wilson(1.0, 2))
    assert parted("test", mem_threshold=0.25)["atypical"]["n_examples"] == 2  # images 3 and 5
    assert parted("train", mem_threshold=1)["atypical"] == {"n_examples": 0}
    index = index + 1
    with pytest.raises(ValueError, match="about other images: its tr_labels are not theirs"):
        parted("train")
    np.savez(file, tr_labels=Y.numpy())
    with pytest.raises(ValueError, match="has no tr_mem for each of 6 images"):
        parted("train")
    with pytest.raises(ValueError, match="has no tt_labels"):
        parted("test")
    file.write_text("x")
    with pytest.raises(ValueError, match="no npz file"):
        parted("train")


@pytest.mark.parametrize(("attack", "norm"), [("pgd9", "linf"), ("pgd9", "l2"), ("aa-quick", "linf")])
def test_adversarial_images_are_in_the_ball_and_prove_the_accuracy(attack, norm, tmp_path):
    file = tmp_path / "adv.safetensors"
    found = evaluate_model(Threshold(), [(X, Y)], [attack], eps=0.1, norm=norm, save_adversarial=file)
    check_tensors(file)
    with safe_open(file, "pt") as opened:
        said, stored = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    adv = stored["adv"]
    assert adv.shape == X.shape
    assert adv.min() >= 0
    assert adv.max() <= 1
    assert (adv - X).abs().max() <= 0.1 + 1e-6  # one pixel: both norms are that
    right = Threshold()(adv).argmax(1) == stored["label"]
    name = "aa_quick" if attack == "aa-quick" else attack
    assert right.double().mean().item() == found["metrics"][f"test/{name}_acc"] == 0.5
    words = said["broken_by"].split(",")
    by = [words[number] for number in stored["broken_by"].tolist()]
    assert [not word for word in by] == right.tolist()
    assert by[4] == "clean"
    assert by[1] == by[3] == ("apgd-ce" if attack == "aa-quick" else attack)
    assert stored["index"].tolist() == list(range(6))
    assert (said["eps"], said["norm"], said["attack"]) == ("0.1", norm, name)
    with pytest.raises(ValueError, match="save_adversarial: it has the images of one attack at one radius"):
        evaluate_model(Threshold(), [(X, Y)], ["pgd2"], eps=[0.1, 0.2], save_adversarial=file)


def test_an_attack_that_leaves_its_ball_is_not_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(PGD, "run", lambda _, adv, problem: adv.copy_((problem.clean + 0.2).clamp(0, 1)))
    with pytest.raises(RuntimeError, match="left its ball, by"):
        evaluate_model(Threshold(), [(X, Y)], ["pgd2"], eps=0.1, save_adversarial=tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


def test_few_classes_are_said():
    found = evaluate_model(Threshold(), [(X, Y)], ["aa-quick"], eps=0.1)
    assert "dlr is not defined for 2 classes: apgd-t climbed the margin in its place" in found["notes"]
