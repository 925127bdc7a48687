"""What a run writes while it trains: by its first process, and the others wait."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from bat_fast.config import TrainConfig
from bat_fast.data import Source
from bat_fast.runs.checkpoint import save_checkpoint
from bat_fast.runs.folder import RunFolder
from bat_fast.train.resume import newest, put_right, rows_of
from bat_fast.train.snapshot import Good
from bat_fast.world.ranks import World


class Record:
    """The folder of a run, which the first process of ``world`` alone opens, reads and writes."""

    def __init__(self, folder: RunFolder, config: TrainConfig, world: World) -> None:
        self.folder, self._world, self._keep = folder, world, config.checkpoint_keep
        self.good = Good(config.optim.on_nonfinite)

    def held(self) -> AbstractContextManager[None]:
        """`RunFolder.held`."""
        return self.folder.held() if self._world.first else nullcontext()

    def newest(self, resume: bool) -> tuple[dict[str, Any] | None, list[str]]:
        """`bat_fast.train.resume.newest`, or nothing for a new run."""
        return self._world.broadcast(newest(self.folder) if resume and self._world.first else (None, []))

    def open(self, config: TrainConfig, *, resume: bool) -> None:
        """`RunFolder.open`."""
        if self._world.first:
            self.folder.open(config, resume=resume)

    def rows(self, state: dict[str, Any]) -> tuple[list[dict[str, Any]], str | None]:
        """`bat_fast.train.resume.rows_of`."""
        return self._world.broadcast(rows_of(state, self.folder) if self._world.first else ([], None))

    def begin(
        self, config: TrainConfig, train: Source, rows: list[dict[str, Any]], *, resume: bool, right: bool
    ) -> None:
        """Write what is known before the first step.

        Args:
            config: the settings.
            train: the training split.
            rows: of the epochs that are done.
            resume: whether the folder may have another configuration, of another number of epochs, say.
            right: whether no checkpoint was found to be damaged.
        """
        if not self._world.first:
            return
        if not right:
            put_right(self.folder)
        if resume:
            self.folder.write_config(config)
        self.folder.write_classes(train.class_names)
        self.folder.write_labels(train.index, train.true_labels, train.labels)
        self.folder.write_rows(rows)

    def epoch(self, row: dict[str, Any], state: dict[str, Any], *, best: bool) -> None:
        """Record an epoch, before `last`: a crash between two files must lose none of them."""
        if self._world.first:
            self.folder.append(row)
            if best:
                save_checkpoint(self.folder.best, state)

    def last(self, state: dict[str, Any], *, due: bool = True) -> None:
        """Save ``state``, ``due`` or owed to a signal, as ``last.pt``; no process goes on before that."""
        self.good.note(state, due)
        if self._world.first:
            self.folder.make_room(self._keep)
            save_checkpoint(self.folder.last, state)
        self._world.barrier()
