"""What a training method is: two functions of a batch, and nothing else."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from bat_fast.attacks.loss import AttackLoss
from bat_fast.batch import Batch


class Terms(NamedTuple):
    """The outcome of a method on one batch."""

    total: Tensor  # scalar to minimise, differentiable
    per_sample: Tensor  # [N] detached cross-entropy on the image trained on
    metrics: dict[str, Tensor]  # detached scalars to log; never read on the host inside the loop


@runtime_checkable
class Method(Protocol):
    """The seam between the trainer and a training method.

    A method never touches modes, gradients, optimisers or data: it says what the attack climbs and
    what the weights descend. Stateful methods also have ``state_dict`` and ``load_state_dict``.
    """

    def attack_loss(self, model: nn.Module, batch: Batch, epoch: int) -> AttackLoss | None:
        """The objective of the attack; None trains on the clean images."""

    def __call__(self, model: nn.Module, batch: Batch, x_adv: Tensor, epoch: int) -> Terms:
        """The loss of one batch, given its adversarial images ``x_adv`` [N, C, H, W]."""


State = dict[str, Any]
