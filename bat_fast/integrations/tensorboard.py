"""The epochs of a run in TensorBoard: ``pip install tensorboard``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bat_fast.integrations.attacker import host
from bat_fast.runs.metrics import numbers
from bat_fast.train.observer import Observer

if TYPE_CHECKING:
    from bat_fast.train.trainer import Trainer


class TensorBoard(Observer):
    """Writes every metric of an epoch, under its name in ``metrics.jsonl``::

        Trainer(config, out, observers=[TensorBoard()])

    It adds what a resumed run trains to what is there.

    Args:
        folder: of the event files; ``tensorboard --logdir`` takes it, or one above it. None is
            ``tensorboard`` in the run folder.

    Raises:
        ImportError: tensorboard is not installed.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        host("tensorboard")
        self._folder = folder
        self._writer: Any = None

    def begin(self, trainer: Trainer) -> None:
        """Open the event file, on the first of several processes."""
        from torch.utils.tensorboard import SummaryWriter

        if trainer.world.first:
            self._writer = SummaryWriter(str(self._folder or trainer.folder.path / "tensorboard"))

    def epoch(self, row: dict[str, Any]) -> None:
        """Write the line of an epoch, to the disk too: a run may be killed in the next one."""
        if self._writer is None:
            return
        for name, value in numbers(row).items():
            self._writer.add_scalar(name, value, row["epoch"])
        self._writer.flush()
