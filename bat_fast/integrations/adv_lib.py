"""Attacks as the adversarial-library and AttackBench call them. Nothing of either is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bat_fast.attacks import PGD


def pgd_linf(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    ε: float | Tensor,
    targeted: bool = False,
    steps: int = 40,
    random_init: bool = True,
    restarts: int = 1,
    relative_step_size: float = 0.01 / 0.3,
    absolute_step_size: float | None = None,
    **options: Any,
) -> Tensor:
    """``adv_lib.attacks.pgd_linf``, computed by `bat_fast.PGD`.

    Like there, an image for which nothing was found comes back clean. Unlike there, the first image that
    succeeds is returned, not the last, and the point after the last step may be it.

    Args:
        model: takes [N, C, H, W] pixels in [0, 1] and returns logits.
        inputs: [N, C, H, W] pixels in [0, 1].
        labels: [N] true classes; with ``targeted`` those to move towards.
        ε: radius, for all images or [N].
        targeted, steps, random_init, restarts, relative_step_size, absolute_step_size: as in the host.
        options: further ones of `bat_fast.PGD`. ``engine="eager"`` makes every call of the model visible to
            those who count them, as AttackBench does.
    """
    step = ε * relative_step_size if absolute_step_size is None else absolute_step_size
    attack = PGD(
        model, ε, step, steps, random_start=random_init, restarts=restarts, keep="best", **options
    )  # fmt: skip
    found = attack(inputs, labels, labels if targeted else None)
    success = attack.succeeds(found, labels, labels if targeted else None)
    return torch.where(success.view(-1, *[1] * (inputs.dim() - 1)), found, inputs)


def attackbench(eps: float, steps: int = 40, **options: Any) -> Callable[..., Tensor]:
    """An attack for AttackBench, which calls it with (model, inputs, labels, targets, targeted) by name.

    Its model counts the calls, which a folded network does not make: so the engine is ``eager`` unless
    ``options`` say another.

    Args:
        eps: radius in pixels.
        steps: number of gradient steps.
        options: of `pgd_linf`.

    Raises:
        ValueError: it is called with ``targeted`` and without ``targets``.
    """

    def attack(
        model: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        targets: Tensor | None = None,
        targeted: bool = False,
    ) -> Tensor:
        if targeted and targets is None:
            raise ValueError("targets [N] are missing: targeted moves towards them")
        goal = targets if targeted and targets is not None else labels
        return pgd_linf(model, inputs, goal, eps, targeted, steps, **{"engine": "eager"} | options)

    return attack
