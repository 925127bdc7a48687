"""Small networks: the gradient at the pixels, and whole attacks. There are kernels for a CPU alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from by_hand import STEPS, folded, hand_pgd, repository_pgd
from torch import Tensor, nn

from bat_fast.ops.network import Map, PlanLayer, network_attack_, network_gradient, network_plan
from operators import Call, Case, Inputs, Work, size

EPS, BATCH = 8 / 255, 128
PIXELS, HIDDEN, CLASSES = 64, 128, 10  # of a network with two linear layers


def input_gradient(model: nn.Module, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    logits = model(x)
    return logits.detach(), torch.autograd.grad(logits, x, grad)[0]


def input_gradient_best(
    x: Tensor, grad: Tensor, first: tuple[Tensor, ...], second: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """``first`` and ``second`` are the weights [out, in] and biases [out] of both layers."""
    hidden = torch.addmm(first[1], x.flatten(1), first[0].T).relu_()
    back = torch.ops.aten.threshold_backward(grad @ second[0], hidden, 0)
    return torch.addmm(second[1], hidden, second[0].T), (back @ first[0]).view_as(x)


class Network:
    """A small network: as a module, and as the operators take it."""

    def __init__(self) -> None:
        self.first, self.second = nn.Linear(PIXELS, HIDDEN), nn.Linear(HIDDEN, CLASSES)
        self.model = nn.Sequential(nn.Flatten(), self.first, nn.ReLU(), self.second)
        images, hidden, logits = (Map(1, 1, n) for n in (PIXELS, HIDDEN, CLASSES))
        # A linear layer is a window of one pixel. Values and weights lie one after the other.
        bias = PIXELS * HIDDEN
        second, last = bias + HIDDEN, bias + HIDDEN + HIDDEN * CLASSES
        end = PIXELS + HIDDEN
        layers = (
            PlanLayer("window", 0, -1, -1, PIXELS, "relu", images, hidden, weight=0, bias=bias),
            PlanLayer("window", PIXELS, -1, -1, end, None, hidden, logits, weight=second, bias=last),
        )
        weights = torch.cat([p.detach().flatten() for p in self.model.parameters()])
        self.given = {"plan": network_plan(layers), "weights": weights, "classes": CLASSES}


def cases(inputs: Inputs) -> Iterator[Case]:
    if not inputs.gpu:
        yield Case("network_gradient", size((BATCH, PIXELS)), partial(_gradient, inputs), compiles=True)
        # A pixel whose gradient is next to 0 may take a step to the other side.
        yield Case("network_attack_", size((BATCH, PIXELS)), partial(_attack, inputs), tolerance=2e-3)


def _gradient(inputs: Inputs) -> Work:
    network, x, grad = Network(), inputs.rand(BATCH, PIXELS, 1, 1), inputs.randn(BATCH, CLASSES)
    weights = [(a.weight.detach(), a.bias.detach()) for a in (network.first, network.second)]
    wide = copy.deepcopy(network.model).double()
    return Work(
        native=lambda: network_gradient(x, grad, **network.given),
        eager=lambda: input_gradient(network.model, x, grad),
        best=partial(input_gradient_best, x, grad, *weights),
        exact=lambda: input_gradient(wide, x.double(), grad.double()),
    )


def _attack(inputs: Inputs) -> Work:
    network, x, y = Network(), inputs.rand(BATCH, PIXELS, 1, 1), inputs.integers(CLASSES, BATCH)
    begin, adv = (x + EPS * inputs.randn(*x.shape).clamp(-1, 1)).clamp(0, 1), x.clone()
    by_hand, wide = folded(network.model, torch.float32), folded(network.model, torch.float64)
    how = {"steps": STEPS, "step_size": EPS / 4, "eps": EPS}
    return Work(
        native=lambda: network_attack_(adv.copy_(begin), x, y, **how, **network.given),
        eager=lambda: repository_pgd(network.model, x, y, EPS, begin),
        best=partial(_by_hand, by_hand, x, y, begin),
        exact=lambda: _by_hand(wide, x.double(), y, begin.double()),
    )


def _by_hand(model: nn.Module, x: Tensor, y: Tensor, begin: Tensor) -> Tensor:
    return hand_pgd(model, x, y, EPS, x.dtype, begin.clone())


def exact(function: Callable[..., Any], *arguments: Any, kept: tuple[int, ...] = ()) -> Tensor:
    """``function``, which changes its first argument, in float64; arguments at the places ``kept`` stay."""
    wide = [
        a.double() if isinstance(a, Tensor) and a.dtype == torch.float32 and place not in kept else a
        for place, a in enumerate(arguments)
    ]
    wide[0] = wide[0].clone()
    function(*wide)
    return wide[0]


def small(_: Inputs) -> Iterator[Call]:
    """None: there is no kernel on a GPU to look at."""
    return iter(())
