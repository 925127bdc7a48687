"""A finished run, for measurements: its trained model and its test images."""

from __future__ import annotations

import copy
from itertools import islice
from pathlib import Path

from torch import nn

from bat_fast import data
from bat_fast.batch import Batch
from bat_fast.config import TrainConfig
from bat_fast.evaluate import load_run, pick_device
from bat_fast.evaluate.saved import split_loader
from bat_fast.train.rehearsal import Rehearsal


class Replay(Rehearsal):
    """What `Rehearsal` gives, from a run instead of by chance.

    Args:
        config: the settings; model and data are those of the run.
        run: its folder.
        images: how many of its test images to take; more where that fills a batch.

    Raises:
        ValueError: a setting is out of range. OSError: no finished run, or its data are not there.
    """

    def __init__(self, config: TrainConfig, run: Path, images: int = 1000) -> None:
        if images < 1:
            raise ValueError(f"--images must be at least 1, got {images}")
        self._trained, saved = load_run(run, pick_device(config.device))
        shape = data.Shape(saved["num_classes"], saved["in_channels"], saved["image_size"])
        super().__init__(config, shape)
        loader = split_loader(saved, "test", config.batch_size, self.device, config.data.root)
        self._batches = list(islice(loader, -(-images // config.batch_size)))

    def model(self) -> nn.Module:
        """A copy of the trained model."""
        return copy.deepcopy(self._trained)

    def batches(self) -> list[Batch]:
        """Test images, the first ones of the split."""
        return self._batches

    def fit(self, model: nn.Module, batch: Batch) -> None:
        """The running statistics of the run are those to measure with."""
