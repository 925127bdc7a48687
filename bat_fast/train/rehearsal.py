"""The training step of a configuration on random images: what a measurement needs, without the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from bat_fast import data
from bat_fast.batch import Batch
from bat_fast.config import TrainConfig
from bat_fast.evaluate import build_model, pick_device
from bat_fast.train import build
from bat_fast.train.feed import Feed
from bat_fast.train.meter import EpochMeter
from bat_fast.train.step import TrainStep

TRAINING_IMAGES = {
    "digits": 1078, "cifar10": 50_000, "cifar100": 50_000, "tiny_imagenet": 100_000, "imagenet": 1_281_167
}  # fmt: skip


class Rehearsal:
    """New models, random batches and training steps of the shape that the data of ``config`` have.

    Args:
        config: the settings.
        shape: of the data, where it is known already.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(self, config: TrainConfig, shape: data.Shape | None = None) -> None:
        build.check(config)
        self.config, self.device = config, pick_device(config.device)
        self.shape = shape or data.shape(config.data.name) or Feed(config, "cpu").shape  # needs the files
        self.images = TRAINING_IMAGES.get(config.data.name)

    def size(self, count: int) -> list[int]:
        """[N, C, H, W] of a batch."""
        return [count, self.shape.in_channels, self.shape.image_size, self.shape.image_size]

    def model(self) -> nn.Module:
        """A new model on the device, the same each time."""
        torch.manual_seed(self.config.seed)
        recipe, channels = build.model_recipe(self.config, self.shape), self.shape.in_channels
        return build_model(recipe, mean=(0.5,) * channels, std=(0.25,) * channels).to(self.device)

    def batch(self, count: int) -> Batch:
        """Random images and labels."""
        x = torch.rand(self.size(count), device=self.device)
        y = torch.randint(0, self.shape.num_classes, (count,), device=self.device)
        return Batch(x, y, torch.arange(count, device=self.device))

    def batches(self) -> list[Batch]:
        """What attacks are measured on: one batch of the size of the configuration, or several."""
        return [self.batch(self.config.batch_size)]

    def fit(self, model: nn.Module, batch: Batch) -> None:
        """Give a new model running statistics that fit."""
        with torch.no_grad():
            for _ in range(3):
                model.train()(batch.x)

    def step(self, config: TrainConfig, model: nn.Module, batch: Batch) -> Callable[[], object]:
        """The training step of ``config``, which has other settings for the same data, on ``batch``."""
        model = model.to(memory_format=cast(Any, torch.channels_last)).train()
        ids = torch.arange(len(batch.y), device=self.device)  # what a method remembers is of this batch
        batch = batch._replace(x=batch.x.to(memory_format=torch.channels_last), index=ids)
        method = build.build_method(config)
        if hasattr(method, "prepare"):
            method.prepare(len(batch.y), int(cast(int, model.num_classes)), self.device)
        attack = build.build_attack(config, method, model)
        optimizer = build.build_optimizer(replace(config, optim=replace(config.optim, lr=1e-4)), model)
        step = TrainStep(model, method, attack, optimizer, config.attack, config.optim)
        meter = EpochMeter(self.device)
        return lambda: step(batch, 0, meter)
