"""PGD and the step of BAT as others write them, once for all benchmarks.

"repository": ``loss.backward()`` in every attack step, the losses in plain PyTorch. "torchattacks": gradients
of the input alone, the update in plain PyTorch, as that library has it. "hand": what an expert gets from
public PyTorch without other tools: a copy of the network with batch norm folded where a library function
does it, channels_last and cast once, gradients of the input alone, the update in place.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from functools import partial

import torch
from operators.discrimination import discrimination_loss
from operators.perturb import linf_step_best
from operators.random_start import random_start_best
from operators.row_loss import bat_loss
from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast.measure.peers import Style, backward_style, climb, input_style, written_pgd, written_start

STEPS = 10
ALPHA, BETA, TEMPERATURE = 1.0, 0.2, 0.1  # of BAT


def repository_pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float, adv: Tensor | None = None) -> Tensor:
    """Adversarial images of ``x`` [N, C, H, W], with steps of a quarter of the radius as all attacks here.

    They start at ``adv``, or anywhere in the ball.
    """
    return _written(backward_style, model, x, y, eps, adv)


def torchattacks_pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float, adv: Tensor | None = None) -> Tensor:
    """Adversarial images as of `repository_pgd`."""
    return _written(input_style, model, x, y, eps, adv)


def _written(style: Style, model: nn.Module, x: Tensor, y: Tensor, eps: float, adv: Tensor | None) -> Tensor:
    begin = written_start(x, eps) if adv is None else adv
    return written_pgd(style, model, begin, x, y, eps=eps, step_size=eps / 4, steps=STEPS)


def hand_pgd(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    eps: float,
    dtype: torch.dtype,
    adv: Tensor | None = None,
) -> Tensor:
    """Adversarial images as of `repository_pgd`; ``model`` is `folded`, and ``adv`` is moved in place."""

    def gradient(adv: Tensor) -> Tensor:
        leaf = adv.to(dtype, copy=True).requires_grad_()
        loss = F.cross_entropy(model(leaf).float(), y, reduction="sum")
        return torch.autograd.grad(loss, leaf)[0]

    begin = random_start_best(x, torch.empty_like(x), eps) if adv is None else adv
    low, high = (x - eps).clamp_(0, 1), (x + eps).clamp_(0, 1)
    return climb(begin, STEPS, gradient, partial(linf_step_best, low=low, high=high, step=eps / 4))


def folded(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy with batch norm folded where torch's own functions find it, frozen and cast."""
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    for parent in copied.modules():
        names = list(parent._modules)
        for first, second in itertools.pairwise(names):
            conv, norm = parent._modules[first], parent._modules[second]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                parent._modules[first] = nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
                parent._modules[second] = nn.Identity()
    return copied.to(dtype=dtype, memory_format=torch.channels_last)


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A model of `folded` under `torch.compile` in its fastest mode, on a GPU with CUDA graphs."""
    fast = torch.compile(model, mode="reduce-overhead")

    def forward(x: Tensor) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()  # the results of the step before may be overwritten
        return fast(x)

    return forward


def bat(logits: Tensor, features: Tensor, y: Tensor) -> Tensor:
    """The loss of BAT on logits [N, C] and features [N, D] of adversarial images."""
    return bat_loss(logits, y, ALPHA) + BETA * discrimination_loss(features, y, TEMPERATURE)


def repository_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, eps: float
) -> None:
    """One step of BAT in the style of published training scripts, in train mode throughout."""
    model.train()
    adv = repository_pgd(model, x, y, eps)
    optimizer.zero_grad()
    bat(*model(adv, return_features=True), y).backward()
    optimizer.step()


def hand_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, eps: float, dtype: torch.dtype
) -> None:
    """One step of BAT with an attack on a copy that is folded anew, attack and weights in ``dtype``."""
    adv = hand_pgd(folded(model, dtype), x, y, eps, dtype)
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
        logits, features = model(adv, return_features=True)
    bat(logits.float(), features.float(), y).backward()
    optimizer.step()
