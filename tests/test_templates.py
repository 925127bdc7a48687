"""What CONTRIBUTING.md promises: a template under another name, laid into the package, works.

Each is copied into a folder that the package looks into beside its own, so the checkout stays as it is.
"""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

from bat_fast import PGD, Batch, methods, models
from bat_fast.cli import main, verbs
from bat_fast.evaluate import load_run
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


def test_a_model_is_one_file(lay, small, tmp_path):
    from bat_fast.config import ModelConfig

    lay(models, "model", "perceptron")
    assert "perceptron_WIDTH" in models.names()
    out = tmp_path / "run"
    Trainer(small(epochs=2, model=ModelConfig(name="perceptron_32")), out, progress=False).fit()
    model, saved = load_run(out)
    assert saved["arch"] == "perceptron_32"
    assert model(torch.rand(3, 1, 8, 8)).shape == (3, 10)


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
