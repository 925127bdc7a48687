"""`torch.func` on every operator with a gradient: ``grad`` and ``vmap(grad)``; and in compiled code."""

import pytest
import torch
from torch.func import grad, vmap

from bat_fast import ops

torch.manual_seed(0)
Y, OTHER = torch.tensor([0, 4, 2, 2, 1, 0]), torch.randn(6, 5)
CALLS = {
    "smooth_relu": lambda z: ops.smooth_relu(z, torch.tensor(20.0)).sum(),
    "softplus": lambda z: ops.softplus(z).sum(),
    "affine": lambda z: (
        ops.affine(z.view(1, 6, 5, 1), torch.ones(6), torch.zeros(6), relu=True).square().sum()
    ),
    "bat_loss": lambda z: ops.bat_loss(z, Y, alpha=1.0)[0],
    "kl_loss": lambda z: ops.kl_loss(z, OTHER)[0],
    "mart_loss": lambda z: ops.mart_loss(z, OTHER, Y)[0],
    "soft_target_loss": lambda z: ops.soft_target_loss(z, OTHER.softmax(1))[0],
    "discrimination_loss": lambda z: ops.discrimination_loss(z, Y, temperature=0.5),
    "holistic_loss": lambda z: ops.holistic_loss(z[:, 0].abs(), alpha=0.1, r=0.1),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", CALLS)
def test_gradients_by_transforms_are_those_of_autograd(name):
    call, several = CALLS[name], torch.randn(3, 6, 5)
    expected = []
    for z in several:
        leaf = z.clone().requires_grad_()
        expected += torch.autograd.grad(call(leaf), leaf)
        torch.testing.assert_close(grad(call)(z), expected[-1])
    torch.testing.assert_close(vmap(grad(call))(several), torch.stack(expected))
    leaf = several[0].clone().requires_grad_()
    value = torch.compile(call, backend="eager", fullgraph=True)(leaf)
    torch.testing.assert_close(torch.autograd.grad(value, leaf)[0], expected[0])
