"""Accuracies of a run on its val and test splits."""

from __future__ import annotations

from typing import Any

from torch import nn

from bat_fast.attacks import Attack
from bat_fast.config import EvalConfig, TrainConfig
from bat_fast.evaluate import evaluate
from bat_fast.evaluate.attacks import make_attack, takes
from bat_fast.runs.metrics import metric
from bat_fast.train.feed import Feed


def eval_attack(config: TrainConfig, model: nn.Module, name: str, split: str = "val") -> Attack:
    """The attack ``name`` that measures ``model``, in the ball that it was trained in.

    Validation, which chooses an epoch, has the engine and the precision of training; the test, whose numbers
    are reported, is in float32.
    """
    attack, step = config.attack, config.eval.step_size
    return make_attack(
        name,
        model,
        eps=attack.eps,
        step_size=attack.step_size if step is None else step,
        norm=attack.norm,
        seed=config.seed,
        engine=attack.engine,
        precision=attack.precision if split == "val" else None,
    )


def test_attack(settings: EvalConfig) -> str:
    """The name of the attack of the final test.

    Raises:
        ValueError: ``eval.test_attack`` is none that training can make.
    """
    name = settings.test_attack
    if name is None:
        return f"pgd{settings.test_steps}"
    try:
        usable = "step_size" in takes(name) or "-step" in name
    except ValueError as error:
        raise ValueError(f"eval.test_attack: {error}") from None
    if not usable:
        raise ValueError(f"eval.test_attack must be PGD, such as pgd50x10-any, got {name!r}")
    return name


def accuracies(
    config: TrainConfig, feed: Feed, model: nn.Module, split: str, attack: str
) -> dict[str, float]:
    """The clean accuracy on a split and that under ``attack``, in [0, 1], named by `metric`."""
    counts = evaluate(model, feed.eval(split), eval_attack(config, model, attack, split))
    named = metric(split, attack.replace("-", "_"))
    return {metric(split, "clean"): counts["clean_acc"], named: counts["robust_acc"]}


def chosen(
    best: dict[str, Any] | None, row: dict[str, Any], criterion: str, *, last: bool = False
) -> dict[str, Any] | None:
    """The row of the best epoch so far: ``best`` or ``row``; a collapsed one only where there is no other.

    Args:
        best: what was chosen before; the earlier epoch stays where both are equal.
        row: of the epoch that is done.
        criterion: name of the accuracy that decides.
        last: the last epoch that has one is taken, however good it is.
    """
    if last and criterion in row:
        return row
    if criterion not in row or (best and row.get("val/collapsed")):
        return best
    return row if best is None or row[criterion] > best[criterion] else best
