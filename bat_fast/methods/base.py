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
    logits: Tensor | None = None  # [N, C] that the method fits to the labels, differentiable


@runtime_checkable
class Method(Protocol):
    """The seam between the trainer and a training method.

    A method never touches modes, gradients, optimisers or data: it says what the attack climbs and
    what the weights descend. It may also have any of these, which the trainer looks for:

    - ``state_dict() -> State`` and ``load_state_dict(state)``: what a resumed run needs;
    - ``prepare(num_samples, num_classes, device)``: called once, before the first batch and before
      ``load_state_dict``; every ``batch.index`` is below ``num_samples``;
    - ``attack_options(attack) -> dict``: arguments of `bat_fast.PGD` that the method sets itself, given
      those of the configuration (``eps``, ``steps``, ``norm``, ...);
    - ``replays: int``: train that many times on each batch, and take the step of the attack with the
      gradient that the training loss leaves at the images, instead of attacking on its own.
    """

    def attack_loss(self, model: nn.Module, batch: Batch, epoch: int) -> AttackLoss | None:
        """The objective of the attack; None trains on the clean images.

        Called without gradients and with the model as the attack sees it (``attack.bn_mode``).
        """

    def __call__(self, model: nn.Module, batch: Batch, x_adv: Tensor, epoch: int) -> Terms:
        """The loss of one batch, given its adversarial images ``x_adv`` [N, C, H, W]."""


State = dict[str, Any]
