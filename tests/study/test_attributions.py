import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from bat_fast.cli import main
from bat_fast.study import attributions
from bat_fast.study.attributions import attribute, gini, read_attributions, sparsity, write_attributions
from bat_fast.study.sections import attributed


class Saliency:
    """As captum's, in few lines."""

    def __init__(self, forward):
        self.forward = forward

    def attribute(self, x, target, abs):
        assert not abs
        return torch.autograd.grad(self.forward(x).gather(1, target[:, None]).sum(), x)[0]


class IntegratedGradients(Saliency):
    """As captum's, by the midpoints of the steps."""

    def attribute(self, x, target, n_steps, internal_batch_size):
        assert internal_batch_size > 0
        ways = [x.detach() * (step + 0.5) / n_steps for step in range(n_steps)]
        gradients = [
            super(IntegratedGradients, self).attribute(way.requires_grad_(), target, False) for way in ways
        ]
        return x.detach() * torch.stack(gradients).mean(0)


STAND_IN = SimpleNamespace(Saliency=Saliency, IntegratedGradients=IntegratedGradients)


def test_the_gini_index_of_known_rows():
    found = gini(torch.tensor([[2.0, -2, 2, 2], [0, 0, -5, 0], [1, 2, 3, 4], [0, 0, 0, 0]]))
    # Of 1, 2, 3, 4: 1 - 2 (0.1 * 3.5 + 0.2 * 2.5 + 0.3 * 1.5 + 0.4 * 0.5) / 4.
    assert found[:3].tolist() == pytest.approx([0, 0.75, 0.25])
    assert found[3].isnan()
    values = torch.randn(2, 3, 4, 5)
    sizes = values.flatten(1).abs().double()
    apart = (
        (sizes[:, :, None] - sizes[:, None]).abs().mean((1, 2)) / sizes.mean(1) / 2
    )  # half the mean difference
    assert gini(values) == pytest.approx(apart)
    assert gini(-7 * values) == pytest.approx(apart)


def test_attributions_of_a_linear_model(monkeypatch):
    """By captum where it is installed, and by what stands in for it in the other tests."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 2, 2, 1])
    w = model[1].weight.detach()[y].view_as(x)
    for stand_in in (False, True):
        if stand_in:
            monkeypatch.setattr(attributions, "captum", lambda: STAND_IN)
        elif find_spec("captum") is None:
            continue
        found = attribute(model, x, y, steps=4)
        assert torch.allclose(found.gradient, w)
        assert torch.allclose(found.integrated, w * x, atol=1e-6)
        assert torch.allclose(found.change, (w * x).flatten(1).sum(1), atol=1e-5)
        assert found.left.abs().max() < 1e-5
        assert model[1].weight.grad is None
        assert not x.requires_grad


def test_the_integral_is_that_of_a_parabola(monkeypatch):
    """z = (sum x)^2 has the integrated gradients x_i sum x."""
    monkeypatch.setattr(attributions, "captum", lambda: STAND_IN)

    class Squared(nn.Module):
        def forward(self, x):
            return x.flatten(1).sum(1, keepdim=True).square() * torch.tensor([1.0, 2.0])

    x = torch.rand(3, 1, 2, 2)
    found = attribute(Squared(), x, torch.tensor([1, 0, 1]), steps=5)
    wanted = x * x.flatten(1).sum(1)[:, None, None, None] * torch.tensor([2.0, 1, 2])[:, None, None, None]
    assert torch.allclose(found.integrated, wanted, atol=1e-5)
    assert found.left.abs().max() < 1e-4


def test_runs_are_compared(monkeypatch, tmp_path, capsys):
    def read(run, images, _):
        x = torch.arange(images * 16.0).view(images, 1, 4, 4) / 1000 + (run.name == "other")
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        nn.init.constant_(model[1].weight, 1.0)
        if run.name == "sparse":
            model[1].weight.data[:, 1:] = 0
        return SimpleNamespace(model=model, test=(x, torch.arange(images) % 2))

    monkeypatch.setattr(attributions, "captum", lambda: STAND_IN)
    monkeypatch.setattr(attributions, "read_subject", read)
    words, more = ["study", "attributions", "all", "sparse"], ["--images", "9", "--device", "cpu"]
    assert main([*words, *more]) == 0
    text = capsys.readouterr().out
    assert "on 9 test images" in text
    assert "0.938 +- 0.000    +0.938 +- 0.000" in text  # 1 - 1/16, and that of equal ones is 0
    assert "that is much" not in text
    found = attributions.compare([Path("all"), Path("sparse")], 9, device="cpu")
    assert found["gradient"].shape == found["integrated"].shape == (2, 9)
    assert found["shown"].shape == (2, 2, 8, 4, 4)
    assert found["shown"].min() >= 0
    more_than_first = np.nanmean(found["integrated"][1] - found["integrated"][0])
    assert sparsity(found, 1, "integrated")[1].value == pytest.approx(more_than_first)
    write_attributions(tmp_path, found)
    again = read_attributions(tmp_path)
    assert again.keys() == found.keys()
    for name, values in again.items():
        np.testing.assert_array_equal(values, found[name])
    assert read_attributions(tmp_path / "none") is None
    for bad, error in (
        ([*words, "other"], "other has other test images than all"),
        ([*words, "--study", str(tmp_path)], "no folder of a study"),
        ([*words, "--steps", "1"], "--images and --steps must be at least 2"),
    ):
        assert main(bad) == 2
        assert error in capsys.readouterr().err


def test_a_model_that_answers_all_images_alike_has_a_dash(monkeypatch, capsys):
    def read(run, images, _):
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        if run.name == "flat":
            nn.init.zeros_(model[1].weight)
        return SimpleNamespace(model=model, test=(torch.ones(images, 1, 4, 4), torch.arange(images) % 2))

    monkeypatch.setattr(attributions, "captum", lambda: STAND_IN)
    monkeypatch.setattr(attributions, "read_subject", read)
    assert main(["study", "attributions", "all", "flat", "--images", "3", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert next(line for line in text.splitlines() if line.startswith("flat")).split() == ["flat", *"––––"]
    assert "nan" not in text
    found = attributions.compare([Path("all"), Path("flat")], 3, device="cpu")
    assert sparsity(found, 1, "gradient")[0].n == 0
    assert attributed(found, ["a", "b"])["tables"][0]["rows"][1][1:] == ["–"] * 4


def test_without_captum_the_command_is_said(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    assert main(["study", "attributions", "runs/a"]) == 1
    assert "attributions need captum: pip install" in capsys.readouterr().err
