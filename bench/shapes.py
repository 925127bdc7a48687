"""The networks and batches that benchmarks of attacks run on, by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from bat_fast import models


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def network(name: str) -> Callable[[], nn.Module]:
    return lambda: models.create(name, num_classes=10, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


SHAPES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (128, 1, 8, 8)),
    "small_cnn": (lambda: models.create("small_cnn", num_classes=10, in_channels=1), (128, 1, 8, 8)),
    "resnet18": (network("preactresnet18"), (32, 3, 32, 32)),
    "resnet18_64": (network("preactresnet18"), (16, 3, 64, 64)),
    "wrn_28_10": (network("wrn_28_10"), (8, 3, 32, 32)),
    "resnet18_32_128": (network("preactresnet18"), (128, 3, 32, 32)),
    "resnet18_128": (network("preactresnet18"), (128, 3, 64, 64)),
    "resnet18_512": (network("preactresnet18"), (512, 3, 64, 64)),
    "timm_resnet50": (network("timm:resnet50"), (4, 3, 224, 224)),
}
TINY = ("mlp", "small_cnn")  # 16 bits do not repay themselves there
