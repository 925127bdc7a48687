"""A model class of one's own: found, told what it asks for, trained, saved, loaded, attacked."""

import json
import sys
from importlib.metadata import EntryPoint

import pytest
import torch
from torch import nn

from bat_fast import PGD, Batch, methods, models
from bat_fast.attacks import untouched
from bat_fast.attacks.engine.freeze import freezer_of
from bat_fast.attacks.engine.program import Program
from bat_fast.cli import main
from bat_fast.evaluate import load_run

SOURCE = """
from collections import namedtuple
import torch
from torch import nn

Output = namedtuple("Output", "logits hidden")

class Net(nn.Module):
    def __init__(self, num_classes, width=8, in_chans=3, how="tensor"):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_chans, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
                                  nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.out, self.how = nn.Linear(width, num_classes), how

    def forward(self, x):
        hidden = self.body(x)
        z = self.out(hidden)
        return {"tensor": z, "tuple": (z, hidden), "dict": {"logits": z}, "object": Output(z, hidden)}[
            self.how
        ]

class NoHead(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(1, num_classes, 3)

    def forward(self, x):
        return self.conv(x).mean((2, 3))

class Scaled(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.flat, self.out = nn.Flatten(), nn.Linear(64, num_classes)

    def forward(self, x):
        return 2 * self.out(self.flat(x))

class Ten(nn.Module):
    def forward(self, x):
        return x.new_zeros(len(x), 10)

def not_a_class(**options):
    raise AssertionError("was called")
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "nets_of_mine.py"
    path.write_text(SOURCE)
    return path


@pytest.mark.parametrize("how", ["tensor", "tuple", "dict", "object"])
def test_its_logits_and_features_are_its_own(how, file):
    options = {"width": 6, "how": how}
    model = models.create(f"{file}:Net", num_classes=5, mean=(0.5,) * 3, std=(0.2,) * 3, options=options)
    x = torch.rand(4, 3, 12, 12)
    logits, features = model.eval()(x, return_features=True)
    hidden = model.net.body((x - 0.5) / 0.2)
    torch.testing.assert_close(features, hidden)
    torch.testing.assert_close(logits, model.head(hidden))
    torch.testing.assert_close(model(x), logits)
    assert (model.feature_dim, model.num_classes) == (6, 5)
    names = [name for name, _ in model.named_parameters()]
    assert len(names) == len(set(names)) == 6


@pytest.mark.parametrize("how", ["tensor", "tuple", "dict", "object"])
def test_the_frozen_engine_takes_it_apart(how, file):
    model = models.create(f"{file}:Net", num_classes=5, options={"how": how, "width": 40}).eval()
    x, y = torch.rand(4, 3, 16, 16), torch.arange(4)
    with torch.no_grad(), untouched(model, "eval"):
        assert isinstance(freezer_of(model).program(model, x, torch.bfloat16), Program)
    plain, frozen = (PGD(model, steps=2, engine=engine)(x, y, draw=0) for engine in ("eager", "frozen"))
    assert (plain == frozen).float().mean() > 0.98


def test_a_module_of_the_working_folder(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    monkeypatch.delitem(sys.modules, "nets_of_mine", raising=False)
    before = list(sys.path)
    model = models.create("nets_of_mine:Net", num_classes=3)
    assert type(model.net).__name__ == "Net"
    assert sys.path == before


def test_what_does_not_end_in_a_linear_layer_has_no_features(file):
    for name, size in (("NoHead", 8), ("Scaled", 8)):
        model = models.create(f"{file}:{name}", num_classes=3, in_channels=1, image_size=size)
        x = torch.rand(2, 1, 8, 8)
        torch.testing.assert_close(model(x), model.net(x))
        with pytest.raises(ValueError, match=r"so it has no features: set method\.beta to 0"):
            model(x, return_features=True)


def test_images_are_enough_to_wrap_a_network_for_bat():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 3))
    x, y = torch.rand(4, 1, 8, 8), torch.arange(4) % 3
    bat = methods.create("bat")
    with pytest.raises(TypeError, match=r"bat_fast\.models\.wrap\(model, x\)"):
        bat(net, Batch(x, y, y), x, 0)
    model = models.wrap(net, x)
    assert (model.num_classes, model.feature_dim, models.wrap(model, x)) == (3, 6, model)
    bat(model, Batch(x, y, y), x, 0).total.backward()
    assert all(weight.grad is not None for weight in net.parameters())
    with pytest.raises(ValueError, match=r"spec must be images \[N, C, H, W\].*got \[1, 8, 8\]"):
        models.wrap(net, x[0])


def test_an_activation_replaces_its_relus(file):
    model = models.create(f"{file}:Net", num_classes=3, activation="silu")
    assert any(isinstance(part, nn.SiLU) for part in model.modules())
    with pytest.raises(ValueError, match=r"has no nn\.ReLU that silu could replace"):
        models.create(f"{file}:NoHead", num_classes=3, in_channels=1, activation="silu")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("{file}:Nett", {}, r"has no 'Nett'; its model classes: Net, NoHead, Scaled, Ten"),
        ("{file}:not_a_class", {}, r"has something else named 'not_a_class'"),
        ("{file}:torch", {}, r"has something else named 'torch'"),
        ("{file}x.py:Net", {}, r"there is no file .*x\.py, which holds the class"),
        (
            "no_such_package.nets:Net",
            {},
            r"there is no module 'no_such_package\.nets', neither installed nor in",
        ),
        ("{file}:Net", {"widht": 3}, r"model\.options: .* unexpected keyword argument 'widht'"),
        ("{file}:Ten", {}, r"gives \[2, 10\] for 2 images of 4 classes, \[2, 4\] is wanted"),
        ("{file}:NoHead", {}, r"fails on images \[2, 3, 32, 32\]"),
        ("subprocess:Popen", {"args": "false"}, r"has something else named 'Popen'"),
        ("small_cnn", {"width": 3}, r"model\.options: small_cnn takes none, got width"),
    ],
)
def test_what_is_wrong_is_named(name, options, message, file):
    with pytest.raises(ValueError, match=message):
        models.create(name.format(file=file), num_classes=4, options=options)


def test_making_one_draws_no_random_numbers_beyond_its_weights(file):
    torch.manual_seed(1)
    models.create(f"{file}:Ten", num_classes=10)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(1))


@pytest.mark.slow
def test_it_is_trained_resumed_evaluated_and_loaded_from_elsewhere(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(file.parent)
    words = ["--recipe", "digits-bat", "--device", "cpu", "--model.name", f"{file.name}:Net"]
    words += ["--model.options", json.dumps({"width": 12}), "--epochs", "1", "--attack.steps", "1"]
    assert main(["train", *words, "--out", "run"]) == 0
    monkeypatch.chdir("/")
    model, saved = load_run(tmp_path / "run")
    assert saved["options"] == {"width": 12}
    assert saved["arch"] == f"{file}:Net"
    assert model.feature_dim == 12
    capsys.readouterr()
    assert main(["eval", str(tmp_path / "run"), "--steps", "1"]) == 0
    assert "clean" in capsys.readouterr().out
    file.unlink()
    with pytest.raises(ValueError, match="which holds the class of the model"):
        load_run(tmp_path / "run")


def test_other_packages_add_theirs_by_an_entry_point(file, monkeypatch):
    monkeypatch.syspath_prepend(str(file.parent))
    monkeypatch.delitem(sys.modules, "nets_of_mine", raising=False)
    point = EntryPoint("my_net", "nets_of_mine:Net", "bat_fast.models")
    monkeypatch.setattr(models, "entry_points", lambda group: [point] if group == point.group else [])
    assert "my_net" in models.names()
    assert type(models.create("my_net", num_classes=3).net).__name__ == "Net"
