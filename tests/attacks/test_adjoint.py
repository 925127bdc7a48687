"""The gradient of a convolution at its input is that of autograd, whichever way it is computed."""

import pytest
import torch
from torch import nn

from bat_fast import PGD, models
from bat_fast.attacks.engine.adjoint import Sampled, Tiled, Transposed, adjoint
from bat_fast.attacks.engine.convolution import Convolution
from bat_fast.attacks.engine.freeze import freezer_of
from bat_fast.attacks.engine.weights import Weights


def integer(low, high):
    return int(torch.randint(low, high + 1, ()))


def geometry(kind):
    """A random convolution [I, O, k, s, p] and an image [H, W] that the kind fits, near or over its edges."""
    inputs, k, s = integer(1, 5), integer(1, 7), integer(1, 3)
    if kind is Sampled:
        return integer(1, 40), integer(1, 40), 1, integer(2, 4), 0, integer(1, 20), integer(1, 20)
    if kind is Tiled:
        inputs, k, s = integer(1, 4), integer(2, 7), integer(1, 2)
        size = k + integer(0, 12) + 1
        return inputs, integer(1, 70), k, s, integer(0, k), size - size % 2, size - size % 2
    return inputs, integer(1, 9), k, s, integer(0, k), k + integer(0, 9), k + integer(0, 9)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Transposed, Tiled, Sampled])
def test_it_is_the_gradient_of_autograd(kind):
    seen = 0
    for _ in range(60):
        inputs, outputs, k, s, p, h, w = geometry(kind)
        layer = nn.Conv2d(inputs, outputs, k, s, p, bias=False)
        x = torch.randn(integer(1, 3), inputs, h, w, requires_grad=True)
        y = layer(x)
        grad = torch.randn_like(y)
        (expected,) = torch.autograd.grad(y, x, grad)
        weights = Weights(layer, None, None)
        conv = Convolution(weights, tuple(x.shape))
        if not conv.packed:
            pytest.skip("a build of torch without oneDNN")
        seen += isinstance(adjoint(conv), kind)
        with torch.no_grad():
            weights.refresh()
            conv.refresh()
            passed = conv.backward(grad.to(memory_format=torch.channels_last))
        at = torch.zeros_like(expected)
        at[:, :, :: conv.step, :: conv.step] = passed
        torch.testing.assert_close(at, expected, rtol=1e-4, atol=1e-4)
    assert seen >= 10


def test_the_first_layer_and_the_shortcuts_of_a_network_are_special():
    model = models.create("preactresnet18", num_classes=10).eval()
    x, y = torch.rand(2, 3, 16, 16), torch.tensor([1, 2])
    PGD(model, steps=1, engine="frozen")(x, y)
    (program,) = freezer_of(model)._programs.values()
    kinds = [type(layer.conv._adjoint) for layer in program.layers if hasattr(layer, "conv")]
    if kinds[0] is not type(None):
        assert [kinds.count(kind) for kind in (Tiled, Sampled)] == [1, 3]


def test_a_double_network_attacked_in_bfloat16():
    model = models.create("preactresnet18", num_classes=10).double().eval()
    x, y = torch.rand(2, 3, 16, 16).double(), torch.tensor([1, 2])
    adv = PGD(model, steps=1, engine="frozen", precision="bf16", random_start=False)(x, y)
    exact = PGD(model, steps=1, engine="eager", random_start=False)(x, y)
    assert ((adv - x).sign() == (exact - x).sign()).double().mean() > 0.9
