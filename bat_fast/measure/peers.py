"""PGD as others have it, for comparison: as scripts write it, and the libraries that are installed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Attack = Callable[[Tensor, Tensor], Tensor]
Style = Callable[[nn.Module, Tensor, Tensor], Tensor]  # model, images, labels -> gradient at the images


def backward_style(model: nn.Module, adv: Tensor, y: Tensor) -> Tensor:
    """The gradient at the images by ``loss.backward()``, which also computes those of the weights.

    Args:
        model: gives logits; its parameters keep the gradients.
        adv: images [N, C, H, W].
        y: labels [N].
    """
    leaf = adv.detach().requires_grad_()
    F.cross_entropy(model(leaf), y).backward()
    assert leaf.grad is not None
    return leaf.grad


def input_style(model: nn.Module, adv: Tensor, y: Tensor) -> Tensor:
    """The gradient at the images alone; arguments as in `backward_style`."""
    leaf = adv.detach().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(leaf), y), leaf)[0]


def written_start(x: Tensor, eps: float) -> Tensor:
    """Images anywhere in the ball around ``x``.

    Args:
        x: clean images [N, C, H, W].
        eps: radius in pixels.
    """
    return (x + torch.empty_like(x).uniform_(-eps, eps)).clamp(0, 1)


def written_step(adv: Tensor, grad: Tensor, x: Tensor, step_size: float, eps: float) -> Tensor:
    """The images after a step along ``grad``, inside the ball around ``x``.

    Args:
        adv: images [N, C, H, W].
        grad: gradient of the loss at them, [N, C, H, W].
        x: clean images [N, C, H, W].
        step_size: step in pixels.
        eps: radius in pixels.
    """
    moved = adv + step_size * grad.sign()
    return (x + (moved - x).clamp(-eps, eps)).clamp(0, 1)


def climb(
    adv: Tensor, steps: int, gradient: Callable[[Tensor], Tensor], step: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """The loop of every attack that is written out for comparison.

    Args:
        adv: images [N, C, H, W] to start at.
        steps: number of steps.
        gradient: of the loss at images, in their shape.
        step: images and gradient -> the next images, which may be the same tensor.
    """
    for _ in range(steps):
        adv = step(adv, gradient(adv))
    return adv


def written_pgd(
    style: Style,
    model: nn.Module,
    adv: Tensor,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    step_size: float,
    steps: int,
) -> Tensor:
    """Linf PGD on cross-entropy in plain PyTorch.

    Args:
        style: `backward_style` or `input_style`.
        model: gives logits; it is attacked in the mode that it is in.
        adv: images [N, C, H, W] to start at.
        x: clean images [N, C, H, W].
        y: labels [N].
        eps: radius in pixels.
        step_size: step in pixels.
        steps: number of steps.
    """
    step = partial(written_step, x=x, step_size=step_size, eps=eps)
    return climb(adv, steps, lambda adv: style(model, adv, y), step)


def peers(model: nn.Module, *, eps: float, step_size: float, steps: int) -> dict[str, Attack]:
    """Linf PGD on cross-entropy from a uniform start, by name; each takes images [N, C, H, W] and labels [N].

    ``backward style`` is how repositories and advertorch have it, ``input style`` asks for the gradient at
    the input alone. Then torchattacks, foolbox and ART themselves, where they are installed.

    Args:
        model: in eval mode; parameters may be left with gradients.
        eps: radius in pixels.
        step_size: step in pixels.
        steps: number of steps.
    """

    def written(style: Style) -> Attack:
        def attack(x: Tensor, y: Tensor) -> Tensor:
            begin = written_start(x, eps)
            return written_pgd(style, model, begin, x, y, eps=eps, step_size=step_size, steps=steps)

        return attack

    found = {"backward style": written(backward_style), "input style": written(input_style)}
    for package, make in (("torchattacks", _torchattacks), ("foolbox", _foolbox), ("art", _art)):
        if find_spec(package) is not None:
            try:
                found[package] = make(model, eps, step_size, steps)
            except ImportError as error:  # of one of its own requirements
                warnings.warn(f"bat_fast: {package} is left out: {error}", stacklevel=2)
    return found


def _torchattacks(model: nn.Module, eps: float, step_size: float, steps: int) -> Attack:
    import torchattacks

    attack = torchattacks.PGD(model, eps=eps, alpha=step_size, steps=steps, random_start=True)
    return lambda x, y: attack(x, y)


def _foolbox(model: nn.Module, eps: float, step_size: float, steps: int) -> Attack:
    import foolbox

    attack = foolbox.attacks.LinfPGD(abs_stepsize=step_size, steps=steps, random_start=True)

    def run(x: Tensor, y: Tensor) -> Tensor:
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
        adv: Tensor = attack(wrapped, x, y, epsilons=eps)[1]
        return adv

    return run


def _art(model: nn.Module, eps: float, step_size: float, steps: int) -> Attack:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    def run(x: Tensor, y: Tensor) -> Tensor:
        classes = getattr(model, "num_classes", 10)
        kind = "gpu" if x.is_cuda else "cpu"
        estimator = PyTorchClassifier(
            model,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(x.shape[1:]),
            nb_classes=classes,
            clip_values=(0.0, 1.0),
            device_type=kind,
        )
        attack = ProjectedGradientDescentPyTorch(
            estimator, eps=eps, eps_step=step_size, max_iter=steps, num_random_init=1, batch_size=len(x),
            verbose=False,
        )  # fmt: skip
        return torch.from_numpy(attack.generate(x.cpu().numpy(), y.cpu().numpy())).to(x)

    return run
