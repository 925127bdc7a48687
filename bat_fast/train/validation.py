"""Accuracies of a run on its val and test splits."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bat_fast.attacks import Attack
from bat_fast.config import EvalConfig, TrainConfig
from bat_fast.evaluate import evaluate
from bat_fast.evaluate.attacks import make_attack, word_of
from bat_fast.evaluate.judge import evaluate_model
from bat_fast.evaluate.kept import State
from bat_fast.runs.metrics import metric
from bat_fast.train.feed import Feed

_AUTOATTACK = 1000  # images, where nobody says


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


def validation_attack(settings: EvalConfig) -> str:
    """The attack that validates, by the name that it has in metrics: ``pgd10``, ``aa_quick``.

    Raises:
        ValueError: there is no such attack.
    """
    return _named("attack", settings.attack, settings.val_steps)


def test_attack(settings: EvalConfig) -> str:
    """That of the final test, likewise."""
    return _named("test_attack", settings.test_attack, settings.test_steps)


def _named(setting: str, name: str | None, steps: int) -> str:
    if name is None:
        return f"pgd{steps}"
    try:
        return word_of(name, make_attack(name, nn.Identity()))
    except ValueError as error:
        raise ValueError(f"eval.{setting}: {error}") from None


def accuracies(
    config: TrainConfig, feed: Feed, model: nn.Module, split: str, attack: str
) -> dict[str, float]:
    """The clean accuracy on a split and that under ``attack``, in [0, 1], named by `metric`."""
    counts = evaluate(model, feed.eval(split), eval_attack(config, model, attack, split), feed.world)
    return {metric(split, "clean"): counts["clean_acc"], metric(split, attack): counts["robust_acc"]}


def autoattack(
    config: TrainConfig, feed: Feed, model: nn.Module, device: str, state: State
) -> dict[str, Any] | None:
    """AutoAttack's verdict on images of the test split, as ``bat-fast eval --attack aa`` gives it.

    Args:
        config: of the run.
        feed: its data.
        model: to judge.
        device: where it is.
        state: where to keep what is found, and what was found before a kill.

    Returns:
        ``metrics``, which is ``test/aa_acc`` in [0, 1], and what it is about: ``interval`` (95 %),
        ``n_examples``, ``broken_by`` and ``attack``. None where the settings ask for none.
    """
    count, source = config.eval.autoattack, feed.splits.test
    if count is None:
        count = _AUTOATTACK if torch.device(device).type == "cuda" else 0
    if not count:
        return None
    count = min(count, len(source))
    print(f"AutoAttack on {count} test images; eval.autoattack 0 leaves it out", flush=True)
    loader = feed.part("test", torch.linspace(0, len(source) - 1, count).long())
    ball: dict[str, Any] = {"eps": float(config.attack.eps), "norm": config.attack.norm}
    found = evaluate_model(model, loader, ["aa"], **ball, state=state, world=feed.world)
    for line in state.notes:
        print(f"WARNING: {line}", flush=True)
    name = metric("test", "aa")
    return {
        "metrics": {name: found["metrics"][name]},
        "interval": found["intervals"][name],
        **{part: found[part] for part in ("n_examples", "broken_by", "attack")},
    }


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
