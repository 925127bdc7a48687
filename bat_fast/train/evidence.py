"""The batch that a NaN came from, kept with the weights that met it, for `bat_fast.train.replay`."""

from __future__ import annotations

from typing import Any

from bat_fast.batch import Batch
from bat_fast.config import TrainConfig
from bat_fast.data import Loader
from bat_fast.runs.checkpoint import save_checkpoint
from bat_fast.runs.folder import RunFolder
from bat_fast.runs.plain import plain
from bat_fast.train.build import Parts
from bat_fast.train.feed import Feed
from bat_fast.train.snapshot import state_of


class Evidence:
    """Keeps what a step was given whose loss or gradient is no longer finite.

    Of several processes the first one keeps the images that it had.

    Args:
        folder: of the run.
        config: of the run.
        parts: of the run.
        feed: its data.
    """

    def __init__(self, folder: RunFolder, config: TrainConfig, parts: Parts, feed: Feed) -> None:
        self._folder, self._config, self._parts, self._feed = folder, config, parts, feed
        self._epoch = -1  # of the one that was kept last

    def keep(self) -> str:
        """Keep the first such batch of an epoch; a sentence about how to look at it, or an empty one.

        Where it was found in the step itself, the weights are kept that met it: no update has been made. A
        GPU that looks now and then has moved on; then the batch is drawn again, without weights.
        """
        step, loader = self._parts.step, self._feed.train
        health, attack = step.health, step.attack
        if not self._feed.world.first:  # the others have the same loss, and other images
            return ""
        if health.finite or step.running is None or health.epoch == self._epoch:
            return ""
        batch = step.running.batch if health.back == 0 else _again(loader, health.back)
        if batch is None:
            return ""
        self._epoch = health.epoch
        state: dict[str, Any] = {
            "epoch": health.epoch,
            "step": health.epoch * len(loader) + loader.position - 1 - health.back,
            "batch": [tensor.cpu() for tensor in batch],
            "awp": step.running.awp,
            "chance": step.running.chance,
            "attack": {"eps": float(attack.eps), "step_size": float(attack.step_size), "steps": attack.steps},
            "config": plain(self._config),
            "shape": list(self._feed.shape),
            "samples": self._feed.ids,
            "learnt": state_of(self._parts) if health.back == 0 else None,
        }
        save_checkpoint(self._folder.nonfinite, state)
        return f"; its batch is kept: bat-fast replay {self._folder.path}"


def _again(loader: Loader, back: int) -> Batch | None:
    """The batch ``back`` before the last one that ``loader`` gave; None where that was in another epoch."""
    place, here = loader.position - 1 - back, loader.state_dict()
    if place < 0:
        return None
    loader.load_state_dict(here | {"position": place})
    return next(iter(loader))
