"""Adversarial images in a Lightning trainer: ``pip install lightning``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from bat_fast._checks import choice
from bat_fast.attacks import PGD
from bat_fast.integrations.attacker import as_module, host

_HOST = host("lightning.pytorch")
_PRECISIONS = {"32": None, "64": None, "bf16": "bf16", "16": "fp16"}  # by what begins the trainer's word
_STAGES = ("train", "validate", "test")


class AdversarialImages(_HOST.Callback):  # type: ignore[misc, name-defined]
    """A callback that attacks the images of every batch before the module gets it, in its precision.

    Batches are tuples that begin with images [N, C, H, W] and classes [N]. Nothing in the module changes, so
    it is trained on adversarial images alone (Madry et al. 2018); losses of methods need their own step.

    Args:
        network: name of the module's attribute that holds the classifier; None is the module itself.
        stages: in which to attack: ``"train"``, ``"validate"``, ``"test"``.
        options: of `bat_fast.PGD`; a ``precision`` among them is kept.

    Raises:
        ValueError: no such stage; when the trainer begins also: no such network, or a precision of the
            trainer that attacks do not know.
    """

    def __init__(
        self,
        network: str | None = None,
        *,
        stages: Sequence[str] = _STAGES,
        **options: Any,
    ) -> None:
        self.stages = tuple(choice("stages", stage, _STAGES) for stage in stages)
        self.network, self.options = network, options

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ARG002
        """Take the place of the module's hook."""
        try:
            net: nn.Module = pl_module.get_submodule(self.network or "")
        except AttributeError as error:
            raise ValueError(f"network: {error}: name an attribute that holds the classifier") from None
        attack = PGD(as_module(net), **{"precision": self._precision(trainer.precision)} | self.options)
        plain = pl_module.on_after_batch_transfer

        def attacked(batch: Any, dataloader_idx: int) -> Any:
            batch = plain(batch, dataloader_idx)
            if trainer.state.stage.value not in self.stages:
                return batch
            if not isinstance(batch, (tuple, list)) or len(batch) < 2:
                raise TypeError(f"batch must begin with images and classes, got a {type(batch).__name__}")
            x, y, *rest = batch
            return getattr(type(batch), "_make", type(batch))((attack(x, y), y, *rest))

        pl_module.on_after_batch_transfer = attacked

    def _precision(self, said: object) -> str | None:
        word = str(said).partition("-")[0]
        if "precision" not in self.options and word not in _PRECISIONS:
            raise ValueError(
                f"precision: attacks know {', '.join(_PRECISIONS)}, and the trainer has {said!r}: "
                "say precision= of AdversarialImages"
            )
        return _PRECISIONS.get(word)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ARG002
        """Give the module its hook back."""
        pl_module.__dict__.pop("on_after_batch_transfer", None)
