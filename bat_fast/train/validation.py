"""Accuracies of a run on its val and test splits."""

from __future__ import annotations

from typing import Any

from torch import nn

from bat_fast.attacks import PGD
from bat_fast.config import TrainConfig
from bat_fast.evaluate import evaluate
from bat_fast.train.chance import chance_alarm
from bat_fast.train.feed import Feed


def eval_attack(config: TrainConfig, model: nn.Module, steps: int) -> PGD:
    """The attack that measures ``model``."""
    attack, step = config.attack, config.eval.step_size
    return PGD(
        model,
        eps=attack.eps,
        step_size=attack.step_size if step is None else step,
        steps=steps,
        norm=attack.norm,
        seed=config.seed,
    )


def accuracies(config: TrainConfig, feed: Feed, model: nn.Module, split: str, steps: int) -> dict[str, float]:
    """``SPLIT/clean_acc`` and ``SPLIT/pgdSTEPS_acc``, in [0, 1]."""
    counts = evaluate(model, feed.eval(split), eval_attack(config, model, steps))
    return {f"{split}/clean_acc": counts["clean_acc"], f"{split}/pgd{steps}_acc": counts["robust_acc"]}


def label_alarm(feed: Feed, row: dict[str, Any], split: str) -> str | None:
    """`chance_alarm` for what ``row`` says about a split, beside the split that was trusted before it."""
    trusted = ("val/clean_acc",) if split == "test" else ("train/clean_acc", "train/robust_acc")
    if split == "val" and feed.config.optim.average != "none":
        return None  # the average lags behind the weights that were trained
    learnt = max((row[name] for name in trusted if name in row), default=0.0)
    source = getattr(feed.splits, split)
    return chance_alarm(split, row[f"{split}/clean_acc"], learnt, source.num_classes, len(source))


def data_warnings(feed: Feed, row: dict[str, Any]) -> list[str]:
    """What a finished run, with the accuracies in ``row``, says against its data."""
    alarm, skipped = label_alarm(feed, row, "test"), feed.skipped()
    lines = [alarm] if alarm else []
    if skipped:
        lines.append(f"{len(skipped)} images were left out, the first: {skipped[0]}")
    return lines
