"""What a training method is: two functions of a batch, and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from bat_fast.attacks.loss import AttackLoss
from bat_fast.batch import Batch

State = dict[str, Any]


class Terms(NamedTuple):
    """The outcome of a method on one batch."""

    total: Tensor  # scalar to minimise, differentiable
    per_sample: Tensor  # [N] detached cross-entropy on the image trained on
    metrics: dict[str, Tensor]  # detached scalars to log; never read on the host inside the loop
    logits: Tensor | None = None  # [N, C] that the method fits to the labels, differentiable


class Method(ABC):
    """The seam between the trainer and a training method.

    A method never touches modes, gradients, optimisers or data: it says what the attack climbs and what the
    weights descend. `__call__` must be written; all else has a default that most methods keep.

    In a run of several processes a method need not know of the others. `attack_loss` is about the images of
    this process. In `__call__` the images are those of this process too, but labels and ids are those of the
    whole batch, and so is what ``model`` returns for images: losses, weights and metrics of it are global.
    """

    replays: int = 0
    """Train that many times on each batch, and take the step of the attack with the gradient that the
    training loss leaves at the images, instead of attacking on its own; 0 attacks."""

    def prepare(self, num_samples: int, num_classes: int, device: str) -> None:
        """Called once, before the first batch and before `load_state_dict`.

        Args:
            num_samples: every ``batch.index`` is below it.
            num_classes: of the model.
            device: where the batches are.
        """

    def consult(self, model: nn.Module) -> None:
        """Called with the trained model that the option ``helper`` names, by a method that has it.

        A method with the option ``robust_helper`` is called again with that.

        Args:
            model: on the device of the batches, in eval mode; it answers as that of `__call__` does.
        """

    def follow(self, average: nn.Module | None, count: Tensor | None) -> None:
        """Called once with the model whose weights are the average of those of the run (``optim.average``).

        Args:
            average: moves by itself; None in a run without.
            count: a scalar, how many weights it is the average of; 0 until it has begun.

        Raises:
            ValueError: the method needs one.
        """

    def attack_options(self, attack: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of `bat_fast.PGD` that the method sets itself.

        Args:
            attack: those of the configuration (``eps``, ``steps``, ``norm``, ...).
        """
        return {}

    def attack_loss(self, model: nn.Module, batch: Batch, epoch: int) -> AttackLoss | None:
        """The objective of the attack: cross-entropy; None trains on the clean images.

        Called without gradients and with the model as the attack sees it (``attack.bn_mode``).
        """
        return AttackLoss("ce")

    @abstractmethod
    def __call__(self, model: nn.Module, batch: Batch, x_adv: Tensor, epoch: int) -> Terms:
        """The loss of one batch.

        Args:
            model: in train mode.
            batch: the clean images, labels and ids.
            x_adv: [N, C, H, W] in [0, 1], its adversarial images.
            epoch: counted from 0.
        """

    def memory(self) -> Tensor | None:
        """What the method keeps for each sample, [num_samples, ...], where `attack_loss` or the attack write
        the rows of their batch: in several processes the trainer gives each the rows of the others, before
        `__call__`. None keeps nothing of the kind."""
        return None

    def state_dict(self) -> State:
        """What a resumed run needs; empty for a method that remembers nothing."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Take over what `state_dict` gave."""
