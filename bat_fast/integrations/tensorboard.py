"""The epochs of a run in TensorBoard: ``pip install tensorboard``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from bat_fast.runs.metrics import numbers
from bat_fast.train.observer import Observer


class TensorBoard(Observer):
    """Writes every metric of an epoch, under its name in ``metrics.jsonl``::

        Trainer(config, out, observers=[TensorBoard(out / "tensorboard")])

    It adds what a resumed run trains to what is there.

    Args:
        folder: of the event files; ``tensorboard --logdir`` takes it, or one above it.

    Raises:
        ImportError: tensorboard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        self._writer = SummaryWriter(str(folder))

    def epoch(self, row: dict[str, Any]) -> None:
        """Write the line of an epoch, to the disk too: a run may be killed in the next one."""
        for name, value in numbers(row).items():
            self._writer.add_scalar(name, value, row["epoch"])
        self._writer.flush()
