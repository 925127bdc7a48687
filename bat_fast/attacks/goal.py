"""What the loop of an attack climbs: an objective with its tensors, and its gradient at the pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bat_fast import ops
from bat_fast._logits import succeeded
from bat_fast.attacks.engine import AttackedModel
from bat_fast.attacks.loss import LossFunction
from bat_fast.ops._ball import per_image

_FP16_SCALE = 1024.0  # of gradients that float16 would round to 0; neither sign nor direction depends on it


class Best:
    """The best images of a path: the first that succeed, and of the others those with the largest loss.

    Args:
        adv: [N, C, H, W] where the path begins.
    """

    def __init__(self, adv: Tensor) -> None:
        self.images, self._score = adv.clone(), adv.new_full((len(adv),), -torch.inf)

    def see(self, adv: Tensor, score: Tensor) -> None:
        """Take those of ``adv`` [N, C, H, W] whose ``score`` [N] is larger than all before."""
        better = score > self._score
        self.images = torch.where(per_image(better, adv), adv, self.images)
        self._score = torch.where(better, score.to(self._score.dtype), self._score)


@dataclass(frozen=True, eq=False)
class Goal:
    """What a loop climbs, as `bat_fast.ops.attack_grad` takes it.

    Args:
        loss: name of the row loss, or a loss of somebody else's (`bat_fast.attacks.AttackLoss`).
        soft_weight: weight of the soft term.
        target: [N] int64 classes to move towards or away from.
        label: [N] int64 true classes.
        targeted: move towards ``target``.
        reference: [N, K] logits that ``kl`` moves away from.
        soft: [N, K] soft targets.
    """

    loss: str | LossFunction
    soft_weight: float
    target: Tensor
    label: Tensor
    targeted: bool
    reference: Tensor | None
    soft: Tensor | None

    @classmethod
    def of(
        cls,
        loss: str | LossFunction,
        soft_weight: float,
        network: AttackedModel,
        clean: Tensor,
        *,
        y: Tensor,
        targets: Tensor | None,
        reference: Tensor | None,
        soft: Tensor | None,
    ) -> Goal:
        """The goal of a loop that was given the tensors of a `bat_fast.attacks.problem.Problem`.

        Args:
            loss, soft_weight: as in `bat_fast.attacks.AttackLoss`.
            network: computes the reference of ``kl`` where none is given.
            clean: [N, C, H, W] images.
            y: [N] int64 true classes.
            targets: [N] int64 classes to move towards, or None.
            reference, soft: [N, K] or None, as in `bat_fast.attacks.AttackLoss`.
        """
        if reference is None and loss in ("kl", "kl+te"):
            reference = network.forward(clean)
        target = y if targets is None else targets
        return cls(loss, soft_weight, target, y, targets is not None, reference, soft)

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `bat_fast.ops.attack_grad`."""
        return vars(self)

    def gradient(
        self, network: AttackedModel, adv: Tensor, best: Best | None = None
    ) -> tuple[Tensor, Tensor]:
        """The direction in which the goal grows.

        Args:
            network: what an engine makes of the model.
            adv: [N, C, H, W] images.
            best: takes those that are better than what it has.

        Returns:
            The gradient [N, C, H, W] up to a positive factor, and the row losses [N] at ``adv``.
        """
        grad_logits, reached = self.look(network, adv, best)
        return network.backward(grad_logits), reached

    def look(self, network: AttackedModel, adv: Tensor, best: Best | None) -> tuple[Tensor, Tensor]:
        """Run the network forward on ``adv`` [N, C, H, W], and let ``best`` see them; as `rows`."""
        logits = network.forward(adv)
        grad_logits, reached = self.rows(logits)
        if best is not None:
            success = succeeded(logits, self.label, self.target if self.targeted else None)
            best.see(adv, reached.masked_fill(success, torch.inf))
        return grad_logits, reached

    def rows(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The goal of each row and its gradient there.

        Args:
            logits: [N, K].

        Returns:
            The gradient [N, K] up to a positive factor, as `AttackedModel.backward` takes it, and the row
            losses [N].
        """
        if callable(self.loss):
            grad_logits, reached = _gradient_of(self.loss, logits, self.target, self.targeted)
        else:
            grad_logits, reached = ops.attack_grad(logits.detach(), **self.arguments)
        if logits.dtype == torch.float16:
            grad_logits.mul_(_FP16_SCALE)
        return grad_logits.to(logits.dtype), reached


def report_labels(device: torch.device) -> None:
    """Raise if a kernel that has run met a label that is no class; does not wait for those that still run.

    Kernels of a GPU leave word of it, and an operator reports it when it is called. A replay calls none, so
    this calls one, on nothing.
    """
    ops.attack_grad(torch.empty(0, 1, device=device), torch.empty(0, dtype=torch.int64, device=device))


def _gradient_of(loss: LossFunction, logits: Tensor, target: Tensor, targeted: bool) -> tuple[Tensor, Tensor]:
    """What `bat_fast.ops.attack_grad` gives, for a loss that somebody wrote in torch."""
    with torch.enable_grad():
        wide = logits.detach() if logits.dtype == torch.float64 else logits.detach().float()
        leaf = wide.requires_grad_()
        value = loss(leaf, target)
        if not isinstance(value, Tensor) or not value.requires_grad:
            raise TypeError("loss must return a tensor that autograd can follow back to the logits")
        value = -value if targeted else value
        (grad,) = torch.autograd.grad(value.sum(), leaf)
    return grad.to(logits.dtype), value.detach().expand(len(logits))
