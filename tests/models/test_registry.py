"""Models by name."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from bat_fast.models import Classifier, create, names, smooth
from bat_fast.models.activation import SmoothReLU
from bat_fast.models.small_cnn import SmallCNN


def test_names_lists_every_architecture():
    assert set(names()) == {
        "small_cnn",
        "preactresnet18",
        "preactresnet34",
        "preactresnet50",
        "preactresnet18_raw",
        "postactresnet18",
        "postactresnet34",
        "wrn_DEPTH_WIDTH",
        "timm:NAME",
        "torchvision:NAME",
        "MODULE:CLASS",
        "FILE.py:CLASS",
    }


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("SmallCNN", "small_cnn"),
        ("preact-resnet18", "preactresnet18"),
        ("PreActResNet18", "preactresnet18"),
        ("PreActResNet-18", "preactresnet18"),
        ("wrn-10-2", "wrn_10_2"),
        ("WideResNet-10-2", "wrn_10_2"),
    ],
)
def test_an_alias_is_the_same_network(alias, name):
    assert repr(create(alias, num_classes=10)) == repr(create(name, num_classes=10))


@pytest.mark.parametrize("suffix", ["-swish", "_silu", "_SiLU"])
def test_a_suffix_sets_the_activation(suffix):
    assert repr(create("wrn-10-1" + suffix, num_classes=10)) == repr(
        create("wrn_10_1", num_classes=10, activation="silu")
    )


def test_a_suffix_and_another_activation_contradict_each_other():
    with pytest.raises(ValueError, match="says swish, but activation is 'gelu'"):
        create("wrn-10-1-swish", num_classes=10, activation="gelu")


@pytest.mark.parametrize("name", ["resnet18", "wrn_28", "small_cnn_relux", "", "timm:", "preactresnet20"])
def test_an_unknown_name_lists_what_exists(name):
    with pytest.raises(ValueError, match=r"there is no model .*small_cnn.*wrn_DEPTH_WIDTH"):
        create(name, num_classes=10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "tanhh"}, "activation: there is no 'tanhh'; there are relu, silu"),
        ({"mean": (0.5,), "std": (0.5,)}, "mean needs one number per channel, 3, got 1"),
        ({"mean": (0.5,) * 3, "std": (0.5, 0.0, 0.5)}, "std must be > 0 and at most 1"),
        ({"in_channels": 0}, "in_channels must be at least 1"),
    ],
)
def test_wrong_options_name_the_argument(options, message):
    with pytest.raises(ValueError, match=message):
        create("small_cnn", num_classes=10, **options)


def test_a_model_is_found_by_its_module_alone(monkeypatch, tmp_path):
    (tmp_path / "tiny_test_net.py").write_text(
        "import re\nfrom bat_fast.models.small_cnn import SmallCNN\n"
        "NAMES, PATTERN = ('tiny',), re.compile('tiny')\n"
        "def build(match, spec):\n    return SmallCNN(spec, width=1)\n"
    )
    import bat_fast.models

    monkeypatch.setattr(bat_fast.models, "__path__", [*bat_fast.models.__path__, str(tmp_path)])
    model = create("tiny", num_classes=3)
    assert isinstance(model, SmallCNN)
    assert model.feature_dim == 2
    assert "tiny" in names()


@pytest.mark.slow
def test_optional_packages_are_not_imported():
    code = (
        "import sys, bat_fast.models, bat_fast.data, bat_fast.methods as m; bat_fast.models.names(); "
        "bat_fast.data.names(); m.names(); bat_fast.models.create('small_cnn', num_classes=2); "
        "print([name for name in ('timm', 'sklearn', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("module", "package", "call"),
    [
        ("timm", "timm", "import bat_fast.models as m; m.create('timm:resnet18', num_classes=2)"),
        ("sklearn.datasets", "scikit-learn", "import bat_fast.data as d; d.load('digits', seed=0)"),
    ],
)
def test_a_missing_package_says_what_to_install(monkeypatch, module, package, call):
    monkeypatch.setitem(sys.modules, module, None)  # what `import` sees where it is not installed
    with pytest.raises(ImportError, match=f"pip install '?{package}") as caught:
        exec(call, {})
    assert "\n" not in str(caught.value)


def test_every_model_is_a_classifier():
    for name in ("small_cnn", "preactresnet18", "wrn_10_1"):
        assert isinstance(create(name, num_classes=4), Classifier)


def test_a_model_shares_no_activation_between_places():
    model = create("small_cnn", num_classes=10)
    assert sum(isinstance(module, nn.ReLU) for module in model.modules()) == 3


@pytest.mark.slow
def test_smooth_converts_an_existing_model_and_keeps_its_weights():
    for name, options in (("small_cnn", {}), ("preactresnet18", {}), ("timm:resnet18", {})):
        if name.startswith("timm"):
            pytest.importorskip("timm")
        model = create(name, num_classes=3, **options)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        assert smooth(model, "smooth_relu") is model
        layers = [module for module in model.modules() if isinstance(module, SmoothReLU)]
        assert layers
        assert not any(isinstance(module, nn.ReLU) for module in model.modules())
        after = model.state_dict()
        assert all(torch.equal(value, after[key]) for key, value in before.items())
        assert len(after) == len(before) + len(layers)
        logits = model.eval()(torch.rand(2, 3, 32, 32))
        logits.sum().backward()
        assert all(layer.beta_raw.grad is not None for layer in layers)
        assert all(layer.beta_raw.item() == 20 for layer in layers)


def test_smooth_says_when_there_is_nothing_to_replace():
    with pytest.raises(ValueError, match="smooth: Linear has no ReLU layer that silu could replace"):
        smooth(nn.Linear(2, 2), "silu")
    with pytest.raises(ValueError, match="activation: there is no 'wavy'"):
        smooth(create("small_cnn", num_classes=2), "wavy")
