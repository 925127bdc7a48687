"""Training on labels drawn by chance (Zhang et al. 2017, arXiv:1611.03530; under attack Dong et al. 2021,
arXiv:2106.01606, section 3).

As there: symmetric noise of a rate from 0 to 1 that is fixed for the run, no weight decay and no
augmentation, as both keep a network from fitting what has no pattern.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bat_fast.config import AugmentConfig, LabelNoiseConfig, Ratio, TrainConfig
from bat_fast.study.jobs import read_splits
from bat_fast.study.lean import answers


def noisy(config: TrainConfig, method: str, rate: float) -> TrainConfig:
    """The settings of one training: ``method`` with the options of ``config`` where it is its own."""
    own = config.method if config.method["name"] == method else {"name": method}
    noise = LabelNoiseConfig(kind="symmetric", rate=Ratio(str(rate)), seed=config.seed)
    return replace(
        config,
        method=own,
        data=replace(config.data, label_noise=noise, augment=AugmentConfig()),
        optim=replace(config.optim, weight_decay=0.0),
    )


def fit(config: TrainConfig, method: str, rate: float, attack: str, device: str) -> dict[str, Any]:
    """Train on noisy labels; accuracies in [0, 1] on them and on the test images, which keep their own.

    Args:
        config: the settings; `noisy` changes them.
        method: name of the training method.
        rate: share of the labels that are drawn, in [0, 1]; of ten classes a tenth stay as they were.
        attack: that judges, such as ``pgd10``.
        device: where it is trained.

    Returns:
        ``method``, ``rate``, ``train_clean``, ``train_robust``, ``test_clean``, ``test_robust``.
    """
    config = noisy(config, method, rate)
    splits = read_splits(config)
    found = answers(config, splits, attack, device, whole=splits.train)
    count = {"train": len(splits.train), "test": len(splits.test)}
    shares = {
        name: float(np.unpackbits(bits, count=count[name.partition("_")[0]]).mean())
        for name, bits in found.items()
    }
    return {"method": method, "rate": rate, **shares}
