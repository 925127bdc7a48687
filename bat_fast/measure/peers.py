"""PGD as other libraries have it, for comparison. Those that are installed, and two styles of writing it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Attack = Callable[[Tensor, Tensor], Tensor]


def peers(model: nn.Module, *, eps: float, step_size: float, steps: int) -> dict[str, Attack]:
    """Linf PGD on cross-entropy from a uniform start, by name; each takes images [N, C, H, W] and labels [N].

    ``backward style``: ``loss.backward()`` in every step, as repositories and advertorch have it, which also
    computes the gradients of the weights. ``input style``: the gradient at the input alone, the rest in plain
    PyTorch. Then torchattacks, foolbox and ART themselves, where they are installed.

    Args:
        model: in eval mode; parameters may be left with gradients.
        eps: radius in pixels.
        step_size: step in pixels.
        steps: number of steps.
    """

    def written(backward: bool) -> Attack:
        def attack(x: Tensor, y: Tensor) -> Tensor:
            adv = (x + torch.empty_like(x).uniform_(-eps, eps)).clamp(0, 1)
            for _ in range(steps):
                adv = adv.detach().requires_grad_()
                loss = F.cross_entropy(model(adv), y)
                if backward:
                    loss.backward()
                    grad = adv.grad
                else:
                    (grad,) = torch.autograd.grad(loss, adv)
                assert grad is not None
                adv = adv.detach() + step_size * grad.sign()
                adv = (x + torch.clamp(adv - x, min=-eps, max=eps)).clamp(0, 1)
            return adv.detach()

        return attack

    found = {"backward style": written(True), "input style": written(False)}
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
