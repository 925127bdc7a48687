"""What CONTRIBUTING.md promises: a template under another name, laid into the package, works.

Each is copied into a folder that the package looks into beside its own, so the checkout stays as it is.
"""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch

from bat_fast import PGD, Batch, attacks, methods, models
from bat_fast.cli import main, verbs
from bat_fast.evaluate import load_run
from bat_fast.evaluate.attacks import make_attack
from bat_fast.train import Trainer

TEMPLATES = Path(__file__).parents[1] / "examples" / "templates"


@pytest.fixture
def lay(tmp_path, monkeypatch):
    """lay(package, "method", "focal"): the template as a module ``focal`` of the package."""
    laid = []

    def copy(package, template: str, name: str) -> None:
        text = (TEMPLATES / f"{template}.py").read_text()
        text = text.replace("template", name).replace("Template", name.capitalize())
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
        laid.append(f"{package.__name__}.{name}")
        importlib.invalidate_caches()

    yield copy
    for module in laid:
        sys.modules.pop(module, None)


@pytest.mark.slow
def test_a_method_is_one_file(lay, small, tmp_path):
    lay(methods, "method", "focal")
    assert "focal" in methods.names()
    with pytest.raises(ValueError, match=r"focal.gamma must be a finite number >= 0"):
        methods.create("focal", gamma=-1)
    results = Trainer(small(epochs=2, method={"name": "focal", "gamma": "1/2"}), tmp_path / "run").fit()
    assert results["metrics"]["test/clean_acc"] > 0.3
    model = models.create("small_cnn", num_classes=10)
    batch = Batch(torch.rand(8, 3, 16, 16), torch.randint(0, 10, (8,)), torch.arange(8))
    x_adv = PGD(model, steps=2)(batch.x, batch.y)
    plain, focal = (methods.create(name, **o)(model, batch, x_adv, 0).total for name, o in
                    (("pgd_at", {}), ("focal", {"gamma": 0})))  # fmt: skip
    torch.testing.assert_close(focal, plain)


@pytest.mark.slow
def test_a_model_is_one_file(lay, small, tmp_path):
    from bat_fast.config import ModelConfig

    lay(models, "model", "perceptron")
    assert "perceptron_WIDTH" in models.names()
    out = tmp_path / "run"
    Trainer(small(epochs=2, model=ModelConfig(name="perceptron_32")), out, progress=False).fit()
    model, saved = load_run(out)
    assert saved["arch"] == "perceptron_32"
    assert model(torch.rand(3, 1, 8, 8)).shape == (3, 10)


@pytest.mark.slow
def test_an_attack_is_one_file(lay, small, tmp_path, capsys):
    lay(attacks, "attack", "momentum")
    model = models.create("small_cnn", num_classes=10)
    x, y = torch.rand(16, 3, 16, 16), torch.randint(0, 10, (16,))
    how = {"eps": 0.1, "step_size": 0.02, "random_start": False}
    plain, momentum = (make_attack(name, model, **how, **more)(x, y) for name, more in
                       (("pgd5", {}), ("momentum5", {"decay": 0.0})))  # fmt: skip
    assert (plain == momentum).float().mean() > 0.99  # without an average it is PGD
    averaged = make_attack("momentum5", model, **how)(x, y)
    assert (averaged != plain).any()
    assert (averaged - x).abs().max() <= 0.1 + 1e-6
    assert torch.nn.functional.cross_entropy(model.eval()(averaged), y) > torch.nn.functional.cross_entropy(
        model(x), y
    )
    out = tmp_path / "run"
    Trainer(small(epochs=2), out, progress=False).fit()
    capsys.readouterr()
    found = []
    for words in (["--steps", "5"], ["--attack", "momentum5"], ["--attack", "fgsm"]):
        assert main(["eval", str(out), "--device", "cpu", "--json", *words]) == 0
        found.append(json.loads(capsys.readouterr().out)["metrics"])
    assert list(found[1]) == ["test/clean_acc", "test/momentum5_acc"]
    assert abs(found[1]["test/momentum5_acc"] - found[0]["test/pgd5_acc"]) < 0.1
    assert found[2]["test/fgsm_acc"] < found[0]["test/clean_acc"]
    assert main(["eval", str(out), "--attack", "fgsm3"]) == 2
    assert "fgsm has its own number of steps" in capsys.readouterr().err
    assert main(["eval", str(out), "--attack", "cw"]) == 2
    assert "there is no attack 'cw'; there are clean, apgd, fab, fgsm, pgd" in capsys.readouterr().err


@pytest.mark.slow
def test_a_verb_is_one_file(lay, small, tmp_path, capsys):
    lay(verbs, "verb", "weights")
    out = tmp_path / "run"
    Trainer(small(epochs=1), out, progress=False).fit()
    assert main(["weights", str(out)]) == 0
    assert "56,554 weights" in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "number of weights of a saved model" in capsys.readouterr().out
    assert main(["weights", "nowhere"]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err


@pytest.mark.slow
def test_an_integration_is_one_file(lay, small, tmp_path):
    from bat_fast import data, integrations
    from bat_fast.evaluate.saved import evaluate_saved

    lay(integrations, "integration", "scikit")
    out = tmp_path / "run"
    Trainer(small(epochs=2), out, progress=False).fit()
    classifier = importlib.import_module("bat_fast.integrations.scikit").ScikitClassifier(out)
    test = data.load("digits", seed=0).test
    images = test.images.flatten(1)
    clean = evaluate_saved(out, steps=0, device="cpu")["metrics"]["test/clean_acc"]
    assert classifier.score(images.numpy(), test.labels.numpy()) == pytest.approx(clean)


def test_every_file_that_the_guide_names_exists():
    root = TEMPLATES.parents[1]
    for page in ("CONTRIBUTING.md", "docs/architecture.md"):
        text = (root / page).read_text()
        for name in re.findall(r"`([\w./]+\.(?:py|md|h|cu|cpp)|[\w./]+/)`", text):
            if not re.search(
                r"[A-Z]{3}", name.removesuffix(".md")
            ):  # WORD, NAME and HOST are yours to choose
                places = [root / base / name for base in ("", "bat_fast", "bat_fast/data", "examples")]
                assert any(place.exists() for place in places), f"{page}: {name}"
