"""Whoever wants to see a run from outside: a study, a log, a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bat_fast.batch import Batch
from bat_fast.methods import Terms

if TYPE_CHECKING:
    from bat_fast.train.trainer import Trainer


class Observer:
    """Told of every step and every epoch of a `bat_fast.train.Trainer`; override what you need.

    An observer changes nothing: the weights of a run are the same with it and without. Reading a number of
    ``terms`` on the host waits for a GPU, so add up on the device and read once an epoch.
    """

    def begin(self, trainer: Trainer) -> None:
        """Before the first epoch of this process, with the run as it is then, new or resumed."""

    def step(self, batch: Batch, terms: Terms, epoch: int) -> None:
        """After an update.

        Args:
            batch: what was trained on.
            terms: what the method said of it, detached: ``per_sample`` [N], ``logits`` [N, K] (None for a
                method that names none) and ``metrics``, in the order of the batch.
            epoch: counted from 0.
        """

    def epoch(self, row: dict[str, Any]) -> None:
        """After an epoch, with its line of ``metrics.jsonl``."""
