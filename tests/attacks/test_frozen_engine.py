"""The frozen engine: the same images as the plain loop, for any model, with the weights of the moment."""

import copy
import gc
import operator
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bat_fast import PGD, models
from bat_fast.attacks import untouched
from bat_fast.attacks.engine import Plain
from bat_fast.attacks.engine.freeze import freezer_of


def lively(model: nn.Module) -> nn.Module:
    """Running statistics and affine parameters that a missed one would show."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
                if module.affine:
                    module.weight.uniform_(-1.5, 1.5)
                    module.bias.normal_(0, 0.2)
    return model


class Block(nn.Module):
    """Everything that makes a graph hard: residuals, a shared layer, writes in place, an odd convolution."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.shared = nn.Conv2d(8, 8, 3, padding="same", bias=False)
        self.grouped = nn.Conv2d(8, 8, (3, 2), stride=(2, 3), padding=(2, 1), dilation=(2, 1), groups=4)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8, affine=False) for _ in range(3))
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.scale = nn.Parameter(torch.rand(8, 1, 1))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = (x - 0.5) * 2
        h = self.norm(self.first(x))
        if self.kind == "residual":
            h = self.act(h)
            h = self.act(self.norms[0](self.shared(h)) + h)
            r = self.shared(self.norms[1](h).relu())
            r += h
            h = r
        elif self.kind == "in place":
            before = torch.tanh(h)  # reads h before ReLU writes over it
            after = self.act(h)
            h = before + after + h  # and h here is what ReLU wrote
        elif self.kind == "odd":
            h = F.gelu(h) * torch.sigmoid(h.mean((2, 3), keepdim=True))
            a, b = self.norms[2](self.grouped(h)).chunk(2, dim=1)
            h = torch.cat([b, a], dim=1) * self.scale
        elif self.kind == "pool":
            h = self.pool(F.silu(h)) if h.shape[-1] > 2 else h
            h = F.leaky_relu(self.shared(h), 0.1)
        return self.head(torch.flatten(F.adaptive_avg_pool2d(h, 1), 1))


KINDS = ("residual", "in place", "odd", "pool")


def both(model, x, bn_mode="eval", dtype=None):
    """Logits and a gradient from the model itself and from its program."""
    results = []
    with torch.no_grad(), untouched(model, bn_mode):
        for network in (Plain(model, dtype), freezer_of(model).program(model, x, dtype)):
            torch.manual_seed(3)
            network.refresh()
            logits = network.forward(x)
            results.append((logits, network.backward(torch.ones_like(logits).cumsum(1))))
    return results


@pytest.mark.parametrize("bn_mode", ["eval", "train"])
@pytest.mark.parametrize("kind", KINDS)
def test_program_equals_the_model(kind, bn_mode, device):
    model, x = lively(Block(kind)).double().to(device), torch.rand(3, 3, 9, 11, device=device).double()
    (logits, grad), (ours, our_grad) = both(model, x, bn_mode)
    torch.testing.assert_close(ours, logits, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(our_grad, grad, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_program_equals_the_model_in_float32(kind, device):
    """Through the packed convolutions of the CPU."""
    model, x = lively(Block(kind)).to(device), torch.rand(3, 3, 9, 11, device=device)
    (logits, grad), (ours, our_grad) = both(model, x)
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-5)
    assert (our_grad - grad).norm() < 1e-4 * grad.norm()


NETWORKS = [
    ("small_cnn", "relu", 16), ("small_cnn", "smooth_relu", 16), ("preactresnet18", "relu", 16),
    ("preactresnet18", "silu", 16), ("wrn_10_2", "relu", 16), ("timm:resnet50", "relu", 64),
    ("timm:convnext_atto", "relu", 64),
]  # fmt: skip
CASES = [(*network, mode) for network in NETWORKS for mode in ("eval", "train")]


# In train mode the stochastic depth of EfficientNet would draw other numbers in the second attack.
@pytest.mark.parametrize(
    ("name", "activation", "size", "bn_mode"), [*CASES, ("timm:efficientnet_b0", "relu", 64, "eval")]
)
def test_attack_reaches_the_same_images(name, activation, size, bn_mode, device):
    """After one step equal pixels, but for signs of gradients within rounding of 0; then the same loss.

    Later steps carry a flipped sign on: after five, 5 % of the pixels may differ, and the loss by 0.1 %.
    """
    model = models.create(
        name, num_classes=10, activation=activation, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.2)
    )
    model = model.to(device)
    for _ in range(3):  # running statistics that fit: with others logits may be huge, or all alike
        model.train()(torch.rand(4, 3, size, size, device=device))
    x, y = torch.rand(4, 3, size, size, device=device), torch.randint(0, 10, (4,), device=device)
    options = {"eps": 0.03, "steps": 5, "bn_mode": bn_mode}
    plain, ours = (PGD(model, engine=engine, **options)(x, y, draw=0) for engine in ("eager", "frozen"))
    assert (ours - x).abs().max() <= 0.03 + 1e-6
    model.train(bn_mode == "train")
    before, expected, reached = (F.cross_entropy(model(images), y).item() for images in (x, plain, ours))
    assert expected > before
    if bn_mode == "eval":  # in train mode logits depend on the whole batch, and one pixel moves all of them
        options["steps"] = 1
        plain, ours = (PGD(model, engine=engine, **options)(x, y, draw=0) for engine in ("eager", "frozen"))
        assert (plain == ours).float().mean() > 0.99
    assert abs(reached - expected) < (0.02 if bn_mode == "eval" else 0.3) * (expected - before)


@pytest.mark.slow
def test_our_networks_leave_nothing_to_autograd():
    for name in ("small_cnn", "preactresnet18", "wrn_10_2", "timm:resnet50"):
        model, x = models.create(name, num_classes=10), torch.rand(2, 3, 32, 32)
        with torch.no_grad(), untouched(model, "eval"):
            program = freezer_of(model).program(model, x, None)
        assert "autograd" not in str(program), str(program)
        assert "batchnorm" not in str(program), str(program)


def test_weights_of_the_moment_are_used():
    torch.manual_seed(0)  # a network of negated weights may saturate, where signs are those of rounding
    model = models.create("preactresnet18", num_classes=10)
    x, y = torch.rand(2, 3, 8, 8), torch.tensor([1, 2])
    ours, plain = (PGD(model, steps=2, engine=engine) for engine in ("frozen", "eager"))
    first = ours(x, y, draw=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    second = ours(x, y, draw=0)
    assert (second == plain(x, y, draw=0)).float().mean() > 0.9
    assert (second == first).float().mean() < 0.98
    for parameter in model.parameters():
        parameter.data.mul_(-1)  # no version counter sees this
    assert (ours(x, y, draw=0) == plain(x, y, draw=0)).float().mean() > 0.9


def test_changed_structure_and_shapes_are_followed():
    model = lively(models.create("small_cnn", num_classes=10))
    attack = PGD(model, steps=2, engine="frozen")
    for _ in range(2):
        for batch, size in ((4, 12), (3, 12), (2, 9), (4, 12), (5, 8), (6, 8)):
            x, y = torch.rand(batch, 3, size, size), torch.zeros(batch, dtype=torch.int64)
            expected = PGD(model, steps=2, engine="eager")(x, y, draw=1)
            assert (attack(x, y, draw=1) == expected).float().mean() > 0.9
        model.body[2] = nn.SiLU()
        model.body[0] = nn.Conv2d(3, 32, 5, padding=2)


@pytest.mark.parametrize("train_head", [False, True])
def test_frozen_parts_and_dropout_of_a_model_in_training(train_head):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.4), nn.Flatten(), nn.Linear(8 * 36, 5)
    ).train()
    model[1].train(train_head)
    x, y = torch.rand(4, 3, 8, 8), torch.randint(0, 5, (4,))
    results = []
    for engine in ("eager", "frozen"):
        torch.manual_seed(11)
        results.append(PGD(model, steps=3, bn_mode="train", engine=engine)(x, y, draw=0))
    assert (results[0] == results[1]).float().mean() > 0.9


class Hooked(nn.Sequential):
    pass


class ByValue(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        z = self.head(x.flatten(1))
        return z if z.sum() > 0 else -z


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        return self.head(x.flatten(1)) * self.calls  # other logits at every call


@pytest.mark.parametrize("make", [ByValue, Pair], ids=["control flow", "state"])
def test_what_is_not_understood_runs_as_it_is_and_says_so_once(make):
    model, x, y = make(), torch.rand(2, 3, 2, 2), torch.tensor([0, 1])
    with pytest.warns(UserWarning, match=f"attacks on {make.__name__} are not folded"):
        ours = PGD(model, steps=2, engine="frozen")(x, y, draw=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PGD(model, steps=2, engine="frozen")(x, y, draw=0)
    assert (ours - x).abs().max() > 0


def test_hooks_run():
    model = Hooked(nn.Flatten(), nn.Linear(12, 4))
    calls = []
    model[1].register_forward_hook(lambda *_: calls.append(1))
    with pytest.warns(UserWarning, match="hooks"):
        PGD(model, steps=3, engine="frozen")(torch.rand(2, 3, 2, 2), torch.tensor([0, 1]))
    assert len(calls) >= 3


def test_parametrized_weights_are_computed():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    torch.nn.utils.parametrizations.weight_norm(model[0])
    x = torch.rand(2, 3, 8, 8)
    for _ in range(2):
        (logits, grad), (ours, our_grad) = both(model, x)
        torch.testing.assert_close(ours, logits)
        torch.testing.assert_close(our_grad, grad)
        with torch.no_grad():
            model[0].parametrizations.weight.original0.mul_(2)


def test_a_model_is_not_kept_alive_and_can_be_copied():
    model = models.create("small_cnn", num_classes=10)
    PGD(model, steps=1, engine="frozen")(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]))
    copy.deepcopy(model)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.slow
def test_precision_and_autocast(device):
    model = models.create("preactresnet18", num_classes=10).to(device)
    model.train()(torch.rand(8, 3, 16, 16, device=device))
    model.eval()
    x, y = torch.rand(8, 3, 16, 16, device=device), torch.randint(0, 10, (8,), device=device)
    exact = PGD(model, engine="frozen")(x, y, draw=0)
    inside = PGD(model, precision="bf16", engine="frozen")(x, y, draw=0)
    with torch.autocast(device, torch.bfloat16):
        outside = PGD(model, engine="frozen")(x, y, draw=0)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)
    before, full, half = (F.cross_entropy(model(images), y).item() for images in (x, exact, inside))
    assert abs(half - full) < 0.1 * (full - before)


def test_arithmetic_table_is_complete():
    from bat_fast.attacks.engine.fuse import ARITHMETIC

    for function, plain in ARITHMETIC.items():
        assert function(torch.tensor(6.0), torch.tensor(2.0)) == plain(6.0, 2.0)
        assert plain in (operator.add, operator.sub, operator.mul, operator.truediv)


@pytest.mark.parametrize("activation", ["smooth_relu", "softplus"])
@pytest.mark.parametrize("engine", ["eager", "frozen"])
def test_our_activations_in_16_bits(activation, engine):
    # Tracing sees the operator behind the checks, and in another precision than it will run in.
    model = models.create("small_cnn", num_classes=10, in_channels=1, activation=activation).eval()
    x, y = torch.rand(16, 1, 8, 8), torch.randint(0, 10, (16,))
    short, exact = (
        PGD(model, eps=0.1, steps=3, precision=precision, engine=engine)(x, y, draw=0)
        for precision in ("bf16", None)
    )
    gain, full = (F.cross_entropy(model(adv), y) - F.cross_entropy(model(x), y) for adv in (short, exact))
    assert abs(gain - full) < 0.1 * full
