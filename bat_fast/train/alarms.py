"""Alarms: labels that do not belong to the images, catastrophic overfitting, images that were left out."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from bat_fast.attacks import PGD, Attack
from bat_fast.batch import Batch
from bat_fast.config import TrainConfig
from bat_fast.data import GIVEN, Source, has_option
from bat_fast.evaluate import evaluate
from bat_fast.train.feed import Feed
from bat_fast.world.ranks import ALONE, World

_BEGUN = 3  # epochs
_STUCK = 2.5  # times chance
_FEW = 5  # validation images for each class, below which their accuracy says little
_GAP = 0.15  # in accuracy: less than that is noise in a batch of a few hundred images


class CollapseAlarm:
    """Catastrophic overfitting of single-step training (Wong et al. 2020, arXiv:2001.03994).

    Compares, on one held-out batch, the accuracy under one FGSM step with that under PGD. A model that has
    learnt to fool the single step it trains with withstands FGSM and falls to PGD. The alarm is raised when
    PGD accuracy is below half of FGSM accuracy, and the two are 15 points apart.

    Args:
        batch: held-out images on the device of the model.
        world: the processes of which each has other images.
    """

    def __init__(self, batch: Batch, world: World = ALONE) -> None:
        self.batch, self._world = batch, world
        self.raised = False

    def describe(self, row: dict[str, Any]) -> str:
        """The collapse that an epoch ended in, in one line."""
        return (
            f"catastrophic overfitting in epoch {row['epoch']}: {row['val/fgsm_acc']:.1%} of the held-out "
            "images withstand FGSM, less than half of that PGD"
        )

    def measure(self, model: nn.Module, pgd: Attack, fgsm: Attack) -> dict[str, float]:
        """``val/fgsm_acc`` and ``val/collapsed`` (1 or 0) of ``model`` under two attacks in the same ball."""
        pgd_acc = evaluate(model, [self.batch], pgd, self._world)["robust_acc"]
        fgsm_acc = evaluate(model, [self.batch], fgsm, self._world)["robust_acc"]
        self.raised = pgd_acc < fgsm_acc / 2 and fgsm_acc - pgd_acc >= _GAP
        return {"val/fgsm_acc": fgsm_acc, "val/collapsed": float(self.raised)}


def collapse_alarm(attack: PGD, feed: Feed) -> CollapseAlarm | None:
    """The alarm of single-step training; None where ``attack`` takes more steps, or none."""
    one_step = attack.steps == 1 and attack.eps > 0
    return CollapseAlarm(next(iter(feed.eval("val"))), feed.world) if one_step else None


def chance_alarm(split: str, accuracy: float, learnt: float, classes: int, examples: int) -> str | None:
    """A warning where a model that has learnt something is at chance on a split.

    That is what class ids in another order look like: the published labels of Tiny ImageNet's validation
    images have cost many people a run.

    Args:
        split: ``val`` or ``test``.
        accuracy: on that split, in [0, 1].
        learnt: on images of which the labels are known to fit: training for ``val``, ``val`` for ``test``.
        classes: number of classes.
        examples: images in the split.
    """
    chance = 1 / classes
    spread = math.sqrt(chance * (1 - chance) / examples)  # of an accuracy at chance
    if learnt < max(4 * chance, chance + 0.1) or accuracy > chance + 3 * spread:
        return None
    return (
        f"{split} accuracy {accuracy:.2%} is that of chance with {classes} classes, though {learnt:.2%} were "
        f"learnt: does the label mapping of the {split} split agree with classes.txt (class ids are the "
        "sorted class names)?"
    )


def too_few(val: Source, name: str) -> str | None:
    """A warning where a handful of images chooses the best epoch.

    Args:
        val: the validation split.
        name: of the data set in the configuration.
    """
    count, classes = len(val), val.num_classes
    if count >= _FEW * classes:
        return None
    if name == GIVEN:
        cure = "give more"
    else:
        cure = "hold out more with --data.options.val" if has_option(name, "val") else "take a larger set"
    return (
        f"{count} images of {classes} classes validate, so that chance chooses the best epoch (one image is "
        f"{1 / count:.1%} of the accuracy): {cure}"
    )


def label_alarm(feed: Feed, row: dict[str, Any], split: str) -> str | None:
    """`chance_alarm` for what ``row`` says about a split, beside the split that was trusted before it.

    None where the row says nothing about the split.
    """
    accuracy = row.get(f"{split}/clean_acc")
    averaged = feed.config.optim.average != "none"  # the average lags behind the weights that were trained
    if accuracy is None or (split == "val" and averaged):
        return None
    trusted = ("val/clean_acc",) if split == "test" else ("train/clean_acc", "train/robust_acc")
    learnt = max((row[name] for name in trusted if name in row), default=0.0)
    source = getattr(feed.splits, split)
    return chance_alarm(split, accuracy, learnt, source.num_classes, len(source))


def stuck_alarm(feed: Feed, row: dict[str, Any]) -> str | None:
    """A warning, once, where a quarter of the run has taught the model next to nothing.

    A network that meets the whole ball at once may settle on one answer for every image, which no attack can
    spoil, and stay there. A ball that grows with the network takes it past that.
    """
    epochs, accuracy = feed.config.epochs, row.get("val/clean_acc")
    if row["epoch"] != max(_BEGUN, epochs // 4) or accuracy is None or feed.config.attack.warmup:
        return None
    classes = feed.shape.num_classes
    if "train/robust_acc" not in row or accuracy > _STUCK / classes or classes < 5:
        return None
    return (
        f"after {row['epoch']} epochs val clean accuracy is {accuracy:.1%} with {classes} classes: let the "
        "ball grow with the network, --attack.warmup 0.5, or take a smaller --attack.eps"
    )


def patience_alarm(config: TrainConfig, epoch: int, best: dict[str, Any] | None) -> str | None:
    """A line where the run is to end, as validation has not improved for long enough.

    Args:
        config: of the run, with ``eval.patience``.
        epoch: epochs done.
        best: the row of the epoch chosen so far.
    """
    patience, since = config.eval.patience, 0 if best is None else epoch - best["epoch"]
    if not patience or since < patience or epoch == config.epochs:
        return None
    return f"no better validation for {since} epochs (eval.patience); stopped"


def data_warnings(feed: Feed, row: dict[str, Any]) -> list[str]:
    """What a finished run, with the accuracies in ``row``, says against its data."""
    alarm, skipped = label_alarm(feed, row, "test"), feed.skipped()
    lines = [alarm] if alarm else []
    if skipped:
        lines.append(f"{len(skipped)} images were left out, the first: {skipped[0]}")
    return lines
