"""Adversarial images in a Lightning trainer: ``pip install lightning``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from bat_fast.attacks import PGD
from bat_fast.integrations.attacker import as_module, host

_HOST = host("lightning.pytorch")
_PRECISIONS = {"32": None, "64": None, "bf16": "bf16", "16": "fp16"}  # by what begins the trainer's word


class AdversarialImages(_HOST.Callback):  # type: ignore[misc, name-defined]
    """A callback that attacks the images of every batch before the module gets it, in its precision.

    Batches are tuples that begin with images [N, C, H, W] and classes [N]. Nothing in the module changes, so
    it is trained on adversarial images alone (Madry et al. 2018); losses of methods need their own step.

    Args:
        network: name of the module's attribute that holds the classifier; None is the module itself.
        stages: in which to attack: ``"train"``, ``"validate"``, ``"test"``.
        options: of `bat_fast.PGD`.
    """

    def __init__(
        self,
        network: str | None = None,
        *,
        stages: Sequence[str] = ("train", "validate", "test"),
        **options: Any,
    ) -> None:
        self.network, self.stages, self.options = network, tuple(stages), options

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ARG002
        """Take the place of the module's hook."""
        net: nn.Module = pl_module.get_submodule(self.network) if self.network else pl_module
        word = str(trainer.precision).partition("-")[0]
        attack = PGD(as_module(net), **{"precision": _PRECISIONS[word]} | self.options)
        plain = pl_module.on_after_batch_transfer

        def attacked(batch: Any, dataloader_idx: int) -> Any:
            x, y, *rest = plain(batch, dataloader_idx)
            if trainer.state.stage.value in self.stages:
                x = attack(x, y)
            return type(batch)((x, y, *rest))

        pl_module.on_after_batch_transfer = attacked

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ARG002
        """Give the module its hook back."""
        pl_module.__dict__.pop("on_after_batch_transfer", None)
