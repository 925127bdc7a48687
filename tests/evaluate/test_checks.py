"""Masked models are caught, each by its check; trained ones raise none."""

import json

import pytest
import torch
from masked import (
    BatchStatistics,
    Detached,
    GradientKiller,
    RandomResize,
    Rounded,
    Scaled,
    Softmax,
    WinnersTakeAll,
)
from torch import nn

from bat_fast import data
from bat_fast.attacks import PGD
from bat_fast.cli import main
from bat_fast.evaluate.checks import check_model
from bat_fast.evaluate.judge import evaluate_model
from bat_fast.runs.finding import Finding

EPS = 0.1


def trained(eps=0.0, activation=nn.ReLU, epochs=6):
    """A small network on the digits, trained on images as they are, or on attacked ones."""
    torch.manual_seed(0)
    layers = []
    for before, after, stride in ((1, 16, 1), (16, 32, 2), (32, 32, 2)):
        layers += [nn.Conv2d(before, after, 3, stride, 1), nn.BatchNorm2d(after), activation()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    train = data.load("digits", seed=0).train
    attack = PGD(model, eps, steps=3, step_size=eps / 2, engine="eager")
    for _ in range(epochs):
        for rows in torch.randperm(len(train)).split(64):
            x, y = train.images[rows], train.labels[rows]
            x = attack(x, y) if eps else x
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def plain():
    return trained()


@pytest.fixture(scope="module")
def images():
    test = data.load("digits", seed=0).test
    return test.images[:128], test.labels[:128]


def raised(model, images, **options):
    return {finding.name for finding in check_model(model, *images, eps=EPS, **options) if finding.raised}


MASKED = {
    Rounded: "zero gradients",
    Scaled: "logit scale",
    GradientKiller: "unbounded attack fails",
    RandomResize: "randomness",
    Detached: "zero gradients",
    Softmax: "probabilities",
    BatchStatistics: "batch dependence",
}


@pytest.mark.parametrize("kind", MASKED, ids=lambda kind: kind.__name__)
def test_a_masked_model_is_caught(kind, plain, images):
    assert MASKED[kind] in raised(kind(plain), images)


@pytest.mark.parametrize("count", [1, 2])
def test_a_few_images_are_no_evidence(count, plain, images):
    assert raised(plain, [tensor[:count] for tensor in images]) == set()


@pytest.mark.slow
def test_jumping_activations_are_caught(images):
    assert "noisy loss" in raised(trained(activation=WinnersTakeAll, epochs=12), images)


@pytest.mark.slow
@pytest.mark.parametrize("eps", [pytest.param(0.0, marks=pytest.mark.whole), EPS])
@pytest.mark.parametrize("norm", [pytest.param("linf", marks=pytest.mark.whole), "l2"])
def test_an_honest_model_raises_none(eps, norm, plain, images):
    model = trained(eps) if eps else plain
    radius = EPS if norm == "linf" else 0.5
    found = check_model(model, *images, eps=radius, norm=norm, full=True)
    assert len(found) == 16
    assert [finding.line for finding in found if finding.raised] == []


@pytest.mark.slow
@pytest.mark.whole
def test_long_attacks_see_masks_too(plain, images):
    assert "square finds more" in raised(Rounded(plain), images, full=True)
    assert "cross entropy weak" in raised(Scaled(plain), images, full=True)


def test_the_model_is_left_untouched(plain, images):
    plain.train()
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    check_model(plain, *(tensor[:16] for tensor in images), eps=EPS)
    assert all(module.training for module in plain.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in plain.state_dict().items())
    assert all(weight.requires_grad for weight in plain.parameters())
    plain.eval()


def test_a_model_out_of_the_graph(plain, images):
    def answer(x):
        return plain(x.detach()).detach()

    assert raised(answer, images) == {"zero gradients"}


def test_answers_that_are_no_numbers(plain, images):
    assert "no numbers" in raised(lambda x: plain(x) * torch.inf, images)
    with pytest.raises(ValueError, match="one logit"):
        check_model(nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), *images, eps=EPS)


def test_a_finding_says_what_to_do():
    finding = Finding("name", 0.25, 0.1, "share", "fix it")
    assert finding.line == "name: share 0.25, more than 0.1: fix it"
    assert finding.raised
    assert Finding("name", float("nan"), 0.1, "share", "fix it").raised
    assert not Finding("name", 0.1, 0.1, "share", "fix it").raised


def test_eval_checks_by_default(tmp_path, capsys):
    weights = tmp_path / "weights.pt"
    code = tmp_path / "net.py"
    code.write_text(
        "import torch\n"
        "class Net(torch.nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, 10), torch.nn.Softmax(1))\n"
    )
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).state_dict(), weights)
    words = ["eval", str(weights), "--model", f"{code}:Net", "--data", "digits", "--eps", "0.1", "--n", "40"]
    assert main([*words, "--attack", "pgd2", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "checks for masked gradients" in out
    assert "WARNING  probabilities" in out
    assert main([*words, "--attack", "pgd2", "--device", "cpu", "--checks", "none", "--json"]) == 0
    assert "checks" not in json.loads(capsys.readouterr().out)


def test_checks_are_part_of_an_evaluation(plain, images):
    found = evaluate_model(Softmax(plain), [images], ["fgsm"], eps=EPS, checks="cheap")
    assert [check["name"] for check in found["checks"] if check["raised"]] == ["probabilities"]
    assert found["notes"] == [next(f.line for f in check_model(Softmax(plain), *images, eps=EPS) if f.raised)]
    with pytest.raises(ValueError, match="checks must be one of"):
        evaluate_model(plain, [images], ["fgsm"], checks="all")
