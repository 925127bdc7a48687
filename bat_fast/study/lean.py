"""One model of many: trained as a run is, with nothing measured or written on the way."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bat_fast import data
from bat_fast._logits import eval_mode, missed
from bat_fast.attacks import Attack
from bat_fast.config import TrainConfig, settled
from bat_fast.device import pick_device, set_backends
from bat_fast.evaluate.accuracy import passes
from bat_fast.train import build
from bat_fast.train.feed import Feed
from bat_fast.train.meter import EpochMeter
from bat_fast.train.snapshot import Good, begin_epoch, state_of
from bat_fast.train.updates import updates
from bat_fast.train.validation import eval_attack


def train_model(config: TrainConfig, splits: data.Splits, device: str) -> nn.Module:
    """The model that the last epoch leaves: bit for bit the one of a run with these settings and data.

    A run validates after each epoch and writes checkpoints; here is neither, so that no image is looked at
    but those of ``splits.train``, and nothing ends early (``eval.patience``, ``on_collapse``).

    Args:
        config: the settings.
        splits: the data; ``train`` is what the model sees.
        device: where it is trained.

    Raises:
        ValueError: a setting is out of range. FloatingPointError: the loss is no longer finite.
    """
    build.check(config)
    config = settled(config)
    set_backends(config.cuda.tf32, config.cuda.benchmark, deterministic=config.deterministic)
    feed = Feed(config, device, splits)
    train = feed.splits.train
    parts = build.parts(config, feed.shape, device, samples=feed.ids, mean=train.mean, std=train.std)
    good, every = Good(config.optim.on_nonfinite), config.checkpoint_every
    for epoch in range(config.epochs):
        loader = feed.training(epoch)
        meter = EpochMeter(device)
        begin_epoch(config.seed, epoch, None, loader, meter, parts.step)
        for update in updates(parts.step, parts, config, loader, epoch, meter, good):
            if every and (update.number + 1) % every == 0:  # a run may go back to its checkpoint here
                good.note(state_of(parts), due=True)
        good.note(state_of(parts), due=True)
    parts.step.health.settle()
    return parts.evaluated


class Correct(NamedTuple):
    """Which images of a split a model gets right, each [N] bool in the order of the split."""

    clean: Tensor
    robust: Tensor | None
    """Under the attack; None without one."""


def correctness(model: nn.Module, source: data.Source, attack: Attack | None, batch_size: int) -> Correct:
    """One pass over the images of ``source``, clean and attacked; the model is in eval mode."""
    device = str(next(model.parameters()).device)
    loader = data.create_loader(source, batch_size, shuffle=False, seed=0, device=device)
    with eval_mode(model), torch.no_grad():
        found = [
            torch.stack([~missed(logits, batch.y) for logits in passes(model, batch, attack)])
            for batch in loader
        ]
    bits = torch.cat(found, 1).cpu()
    return Correct(bits[0], None if attack is None else bits[1])


def answers(
    config: TrainConfig, splits: data.Splits, attack: str | None, device: str, *, whole: data.Source
) -> dict[str, np.ndarray]:
    """Train a model and keep what it gets right, as packed bits: ``train_clean``, ``test_clean`` and, with an
    attack, ``train_robust``, ``test_robust``.

    Args:
        config, splits, device: of `train_model`.
        attack: such as ``pgd10``, in the ball of the training; None measures clean images alone.
        whole: the training samples that are judged, whether the model saw them or not.
    """
    device = pick_device(device)
    model = train_model(config, splits, device)
    judge = None if attack is None else eval_attack(settled(config), model, attack, "test")
    found = {}
    for split, source in (("train", whole), ("test", splits.test)):
        for kind, bits in correctness(model, source, judge, config.eval.batch_size)._asdict().items():
            if bits is not None:
                found[f"{split}_{kind}"] = np.packbits(bits.numpy())
    return found
