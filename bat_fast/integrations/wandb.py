"""The epochs of a run in Weights & Biases: ``pip install wandb``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bat_fast.integrations.attacker import host
from bat_fast.runs.metrics import numbers
from bat_fast.runs.plain import plain
from bat_fast.train.observer import Observer

if TYPE_CHECKING:
    from bat_fast.train.trainer import Trainer


class WandB(Observer):
    """Logs every metric of an epoch under its name in ``metrics.jsonl``, with the epoch as step::

        Trainer(config, out, observers=[WandB(project="robust")])

    What is logged is numbers and settings. The run of wandb ends after the last epoch, or with the process.

    Args:
        settings: of ``wandb.init``. Its ``name``, ``dir`` and ``config`` are those of the run folder where
            they are not given; a resumed run goes on under the ``id`` that was given, with
            ``resume="allow"``.

    Raises:
        ImportError: wandb is not installed.
    """

    def __init__(self, **settings: Any) -> None:
        self._host, self._settings = host("wandb"), settings
        self.run: Any = None

    def begin(self, trainer: Trainer) -> None:
        """Open the run, on the first of several processes."""
        if trainer.world.first:
            path = trainer.folder.path
            own = {"name": path.name, "dir": str(path), "config": plain(trainer.config)}
            self.run, self._trainer = self._host.init(**(own | self._settings)), trainer

    def epoch(self, row: dict[str, Any]) -> None:
        """Log the line of an epoch; after the last one the run is finished."""
        if self.run is None:
            return
        self.run.log(numbers(row), step=row["epoch"])
        if self._trainer.stopped or row["epoch"] == self._trainer.config.epochs:
            self.run.finish()
