"""What holds for every classifier: shapes, features, normalisation, activation."""

import pytest
import torch
from torch import nn

from bat_fast.models import Normalize, create
from bat_fast.models.activation import activation, activations

SMALL = ["small_cnn", "preactresnet18", "wrn_10_1", "timm:resnet18"]


def millions(model: nn.Module) -> float:
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("small_cnn", 0.0577),
        ("preactresnet18", 11.1719),
        ("preactresnet34", 21.2803),
        ("wrn_28_10", 36.4792),
        ("wrn_34_10", 46.1600),
    ],
)
def test_number_of_parameters(name, size):
    with torch.device("meta"):  # counts need no memory
        model = create(name, num_classes=10)
    assert millions(model) == pytest.approx(size, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "size"),
    [("small_cnn", (8, 8)), ("small_cnn", (9, 13)), ("small_cnn", (32, 32))]
    + [(name, size) for name in ("preactresnet18", "wrn_10_1") for size in ((32, 32), (64, 64))]
    + [("preactresnet50", (32, 32)), ("timm:resnet18", (32, 32))],
)
def test_shapes(name, size):
    model = create(name, num_classes=7).eval()
    x = torch.rand(2, 3, *size)
    logits, features = model(x, return_features=True)
    assert logits.shape == (2, 7)
    assert features.shape == (2, model.feature_dim)
    assert model.num_classes == 7


@pytest.mark.parametrize(
    "name", [*SMALL, "timm:mobilenetv3_small_050", "timm:convnext_atto", "timm:efficientnet_b0"]
)
def test_features_and_logits_belong_together(name):
    torch.manual_seed(0)
    model = create(name, num_classes=5, image_size=32).eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        logits, features = model(x, return_features=True)
        assert torch.equal(logits, model(x))
        assert torch.equal(features, model.features(x))
        assert torch.equal(logits, model.classify(features))
        if name.startswith("timm:"):
            assert torch.allclose(logits, model.net(model.normalize(x)), atol=1e-6)


def test_one_pass_updates_the_batch_statistics_once():
    model = create("small_cnn", num_classes=5).train()
    model(torch.rand(4, 3, 8, 8), return_features=True)
    assert int(model.state_dict()["body.1.num_batches_tracked"]) == 1


def test_a_vision_transformer_takes_the_image_size():
    model = create("timm:vit_tiny_patch16_224", num_classes=5, image_size=32).eval()
    with torch.no_grad():
        logits, features = model(torch.rand(2, 3, 32, 32), return_features=True)
    assert logits.shape == (2, 5)
    assert features.shape == (2, 192)


def test_the_gradient_reaches_the_pixels():
    for name in SMALL:
        x = torch.rand(2, 3, 32, 32, requires_grad=True)
        model = create(name, num_classes=5).eval()
        (grad,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
        assert grad.abs().sum() > 0, name


@pytest.mark.parametrize("name", SMALL)
def test_normalisation_inside_is_exact(name):
    mean, std = (0.1, 0.4, 0.6), (0.2, 0.3, 0.5)
    torch.manual_seed(0)
    inside = create(name, num_classes=5, mean=mean, std=std).eval()
    torch.manual_seed(0)
    outside = create(name, num_classes=5).eval()
    x = torch.rand(2, 3, 16, 16)
    by_hand = (x - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    assert torch.equal(inside(x), outside(by_hand))
    assert not torch.equal(inside(x), outside(x))


def test_the_state_dict_carries_mean_and_std():
    state = create("small_cnn", num_classes=5, mean=(0.1, 0.4, 0.6), std=(0.2, 0.3, 0.5)).state_dict()
    assert torch.equal(state["normalize.mean"], torch.tensor((0.1, 0.4, 0.6)).view(1, 3, 1, 1))
    assert torch.equal(state["normalize.std"], torch.tensor((0.2, 0.3, 0.5)).view(1, 3, 1, 1))
    other = create("small_cnn", num_classes=5)
    other.load_state_dict(state)
    assert torch.equal(other.normalize.mean, state["normalize.mean"])


def test_mean_and_std_are_of_pixels_in_0_1():
    for bad in ({"mean": (123.0,), "std": (0.2,)}, {"mean": (0.5,), "std": (58.0,)}):
        with pytest.raises(ValueError, match=r"in \[0, 1\], got (123|58).0: divide it by 255"):
            create("small_cnn", num_classes=5, in_channels=1, **bad)
    for bad in ({"mean": (-0.1,)}, {"std": (0.0,)}, {"mean": (float("nan"),)}):
        with pytest.raises(ValueError, match=r"pixels are in \[0, 1\], got"):
            create("small_cnn", num_classes=5, in_channels=1, **bad)
    create("small_cnn", num_classes=5, in_channels=1, mean=(0.0,), std=(1.0,))


def test_no_weight_is_in_the_state_dict_twice():
    for name in SMALL:
        state = create(name, num_classes=5).state_dict()
        assert len({tensor.data_ptr() for tensor in state.values()}) == len(state), name


def test_a_grey_image_does_not_become_a_colour_image():
    with pytest.raises(ValueError, match=r"x must be \[N, 3, H, W\], got \[2, 1, 8, 8\]"):
        Normalize((0.5,) * 3, (0.5,) * 3)(torch.rand(2, 1, 8, 8))


@pytest.mark.parametrize("name", SMALL)
def test_the_activation_replaces_every_relu(name):
    relu = create(name, num_classes=5)
    smooth = create(name, num_classes=5, activation="silu")
    count = sum(isinstance(module, nn.ReLU) for module in relu.modules())
    assert count > 0
    assert not any(isinstance(module, nn.ReLU) for module in smooth.modules())
    assert sum(isinstance(module, nn.SiLU) for module in smooth.modules()) == count
    # No functional ReLU is left either: only of a smooth network is the gradient continuous.
    x = torch.rand(2, 3, 16, 16, requires_grad=True)
    graph, seen = [smooth.eval()(x).grad_fn], set()
    while graph:
        node = graph.pop()
        if node is not None and node not in seen:
            seen.add(node)
            graph += [parent for parent, _ in node.next_functions]
    assert not [node.name() for node in seen if "Relu" in node.name()]


@pytest.mark.parametrize(
    ("name", "textbook"),
    [
        ("relu", lambda x: x.clamp_min(0)),
        ("silu", lambda x: x * torch.sigmoid(x)),
        ("swish", lambda x: x * torch.sigmoid(x)),
        ("gelu", lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5))),
        ("elu", lambda x: torch.where(x > 0, x, x.exp() - 1)),
        ("celu", lambda x: torch.where(x > 0, x, x.exp() - 1)),
        ("mish", lambda x: x * torch.tanh((1 + x.exp()).log())),
        ("smooth_relu", lambda x: torch.where(x > 0, x - (400 * x + 1).log() / 400, 0.0)),
        ("softplus", lambda x: (1 + (10 * x).exp()).log() / 10),
    ],
)
def test_activations_are_the_textbook_functions(name, textbook):
    assert name in activations()
    x = torch.linspace(-4, 4, 101, dtype=torch.float64)
    assert torch.allclose(activation(name)()(x.clone()), textbook(x), atol=1e-8)


def test_an_activation_that_changes_nothing_is_an_error():
    with pytest.raises(ValueError, match="convnext_atto has no ReLU that silu could replace"):
        create("timm:convnext_atto", num_classes=5, activation="silu")
    create("timm:efficientnet_b0", num_classes=5, activation="silu")  # has it by itself


def test_an_unknown_timm_model_suggests_a_near_one():
    with pytest.raises(ValueError, match=r"timm has no model 'resnet81'; did you mean .*resnet"):
        create("timm:resnet81", num_classes=5)


@pytest.mark.parametrize("name", ["wrn_27_10", "wrn_4_1", "wrn_0_1"])
def test_a_wrong_depth_of_a_wide_resnet(name):
    with pytest.raises(ValueError, match=r"6 n \+ 4"):
        create(name, num_classes=5)
