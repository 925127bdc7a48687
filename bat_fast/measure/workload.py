"""What is measured: the training step of a configuration, on random images or on those of a finished run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from bat_fast import data
from bat_fast.batch import Batch
from bat_fast.config import TrainConfig, settled
from bat_fast.device import layout, pick_device, set_backends
from bat_fast.evaluate.saved import split_loader
from bat_fast.runs.model_file import load_run
from bat_fast.train import build
from bat_fast.train.feed import Feed
from bat_fast.train.meter import EpochMeter


class RandomWorkload:
    """New models, random batches and training steps of the shape that the data of ``config`` have.

    Args:
        config: the settings.
        shape: of the data, where it is known already.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(self, config: TrainConfig, shape: data.Shape | None = None) -> None:
        build.check(config)
        self.config = config = settled(config)
        self.device = pick_device(config.device)
        set_backends(config.cuda.tf32, config.cuda.benchmark)
        self.shape = (
            shape or data.shape(config.data.name, config.data.options) or Feed(config, "cpu").shape
        )  # needs the files
        # Options such as ``val`` change the number, which is then known to who reads the files only.
        self.images = None if config.data.options else data.train_images(config.data.name)

    def size(self, count: int) -> list[int]:
        """[N, C, H, W] of a batch."""
        return [count, self.shape.in_channels, self.shape.image_size, self.shape.image_size]

    def model(self) -> nn.Module:
        """A new model on the device, the same each time, as training has it."""
        channels = self.shape.in_channels
        mean, std = (0.5,) * channels, (0.25,) * channels
        return build.parts(self.config, self.shape, self.device, mean=mean, std=std).model

    def batch(self, count: int) -> Batch:
        """Random images and labels."""
        x = torch.rand(self.size(count), device=self.device).to(memory_format=layout(self.device))
        y = torch.randint(0, self.shape.num_classes, (count,), device=self.device)
        return Batch(x, y, torch.arange(count, device=self.device))

    def batches(self) -> list[Batch]:
        """What attacks are measured on: one batch of the size of the configuration, or several."""
        return [self.batch(self.config.batch_size)]

    def settle(self, model: nn.Module, batch: Batch) -> None:
        """Give a new model running statistics that fit."""
        with torch.no_grad():
            for _ in range(3):
                model.train()(batch.x)

    def step(self, config: TrainConfig, model: nn.Module, batch: Batch) -> Callable[[], object]:
        """The training step of ``config``, which has other settings for the same data, on ``batch``."""
        model.train()
        ids = torch.arange(len(batch.y), device=self.device)  # what a method remembers is of this batch
        batch = batch._replace(index=ids)
        slow = replace(config, optim=replace(config.optim, lr=1e-4))  # the weights shall stay where they are
        step = build.parts(slow, self.shape, self.device, samples=len(batch.y), model=model, begin=False).step
        meter = EpochMeter(self.device)
        return lambda: step(batch, 0, meter)


class RunWorkload(RandomWorkload):
    """What `RandomWorkload` gives, from a run instead of by chance.

    Args:
        config: the settings; model and data are those of the run.
        run: its folder.
        images: how many of its test images to take; more where that fills a batch.

    Raises:
        ValueError: a setting is out of range. OSError: no finished run, or its data are not there.
    """

    def __init__(self, config: TrainConfig, run: Path, images: int = 1000) -> None:
        if images < 1:
            raise ValueError(f"images must be at least 1, got {images}")
        self._trained, saved = load_run(run, pick_device(config.device))
        shape = data.Shape(saved["num_classes"], saved["in_channels"], saved["image_size"])
        super().__init__(config, shape)
        loader = split_loader(saved, "test", config.batch_size, self.device, config.data.root)
        self._batches = list(islice(loader, -(-images // config.batch_size)))

    def model(self) -> nn.Module:
        """A copy of the trained model, laid out as in training."""
        return copy.deepcopy(self._trained).to(memory_format=cast(Any, layout(self.device)))

    def batches(self) -> list[Batch]:
        """Test images, the first ones of the split."""
        return self._batches

    def settle(self, model: nn.Module, batch: Batch) -> None:
        """The running statistics of the run are those to measure with."""
