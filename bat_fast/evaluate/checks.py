"""Checks of a model that looks more robust than it is: its gradient may be masked.

After Carlini et al. 2019 (arXiv:1902.06705), Pintor et al. 2021 (arXiv:2106.09947) and AutoAttack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast._logits import logits_of
from bat_fast.attacks import APGD, FGSM, AutoAttack, Square, untouched
from bat_fast.attacks.modules import as_module
from bat_fast.attacks.search import exact_logits
from bat_fast.attacks.step import one_number, which_norm
from bat_fast.evaluate.trial import FEW, Trial, apart, share
from bat_fast.runs.finding import Finding

_DRAWS = 10
_QUERIES = 1000  # of the Square attack


def check_model(
    model: nn.Module | Callable[[Tensor], Any],
    x: Tensor,
    y: Tensor,
    *,
    eps: float | str,
    norm: str = "linf",
    seed: int = 0,
    full: bool = False,
) -> list[Finding]:
    """Look for signs that the gradient of a model does not lead to its adversarial images.

    Args:
        model: as `bat_fast.evaluate.judge.evaluate_model` takes it; left untouched.
        x: [N, C, H, W] pixels in [0, 1]; a hundred images will do.
        y: [N] int64 true classes.
        eps, norm: the ball.
        seed: of the random numbers.
        full: also the checks that need long attacks.

    Raises:
        ValueError, TypeError: an argument is out of range.
    """
    module = as_module(model)
    # What does not need a gradient comes first: without one there is nothing to attack with.
    with torch.inference_mode(False), torch.no_grad(), untouched(module, "eval"):
        trial = Trial(module, x, y, one_number("eps", eps, "check_model"), which_norm(norm), seed)
        found = [*_of_answers(trial), *_of_gradients(trial)]
        if not trial.has_gradient:
            return found
        found += _of_short_attacks(trial)
        return found + (list(_of_long_attacks(trial)) if full else [])


def _of_answers(trial: Trial) -> Iterator[Finding]:
    logits = trial.logits
    yield Finding(
        "no numbers", share(~logits.isfinite().all(1)), 0.0,
        "share of images with logits that are no numbers",
        "look for a division by 0 or an overflow in the model",
    )  # fmt: skip
    again = [exact_logits(trial.model, trial.x) for _ in range(4)]
    yield Finding(
        "randomness", max(apart(logits, other) for other in again), 1e-4,
        "difference of logits in two passes",
        "attack averages of gradients, --attack aa-rand, and report the mean of several evaluations",
    )  # fmt: skip
    few = range(min(4, len(trial.y)))
    alone = torch.cat([exact_logits(trial.model, trial.x[i : i + 1]) for i in few])
    yield Finding(
        "batch dependence", apart(logits[: len(alone)], alone), 1e-2,
        "difference of logits of an image alone and in a batch",
        "use the running statistics: batch norm must be in eval mode",
    )  # fmt: skip
    probable = (logits >= 0).all(1) & (logits <= 1).all(1) & ((logits.sum(1) - 1).abs() < 1e-4)
    yield Finding(
        "probabilities", share(probable), 0.5, "share of answers that are probabilities",
        "return logits: leave the last softmax out",
    )  # fmt: skip


def _of_gradients(trial: Trial) -> Iterator[Finding]:
    gradient = torch.zeros_like(trial.x)
    if trial.has_gradient:
        with torch.enable_grad():
            x = trial.near(0).requires_grad_()
            loss = F.cross_entropy(logits_of(trial.model(x)).float(), trial.y, reduction="sum")
            gradient = torch.autograd.grad(loss, x)[0]
    flat = gradient.flatten(1)
    dead = (flat == 0).all(1) | ~flat.isfinite().all(1)
    yield Finding(
        "zero gradients", share(dead), 0.1, "share of images where the loss has no gradient",
        "attack the model without rounding, detach() or saturated logits in the way, or with square",
    )  # fmt: skip
    here = trial.losses(trial.x)
    far = torch.stack([trial.losses(trial.near(draw)) - here for draw in range(_DRAWS)])
    close = torch.stack([trial.losses(trial.near(draw, 0.01)) - here for draw in range(_DRAWS)])
    moved = far.abs().mean().item()
    yield Finding(
        "noisy loss", close.abs().mean().item() / moved if moved > 1e-6 else 0.0, 0.05,
        "change of the loss in a hundredth of the ball, relative to that in the ball,",
        "the loss jumps: attack a smooth stand-in of the layer that does, or with square",
    )  # fmt: skip


def _of_short_attacks(trial: Trial) -> Iterator[Finding]:
    least = max(0.01, trial.few)
    pgd = trial.pgd()
    scale = trial.logits.std(1).mean().clamp(min=1e-6)

    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return logits_of(trial.model(x)) / scale

    scaled = trial.pgd(model=Scaled())
    yield Finding(
        "logit scale", share(pgd) - share(scaled), least, "accuracy under PGD that rescaled logits take away",
        "divide the logits by a constant before the loss, or attack with --loss margin or dlr",
    )  # fmt: skip
    noise = trial.clean.clone()
    for draw in range(_DRAWS):
        noise &= trial.right(trial.near(draw))
    lost = share(trial.clean) - share(noise)
    yield Finding(
        "noise as strong", share(pgd) - share(noise) if lost > least else -max(1.0, least), -least,
        "accuracy under PGD, minus that under random noise,",
        "the gradient leads nowhere: see the other checks, and attack with square",
    )  # fmt: skip
    fgsm = trial.survives(FGSM(trial.model, trial.eps, norm=trial.norm, engine="eager"))
    yield Finding(
        "one step stronger", share(pgd) - share(fgsm), least,
        "accuracy under PGD, minus that under one step,",
        "use more or smaller steps; after training with one step this is catastrophic overfitting",
    )  # fmt: skip
    every = 0.5 if trial.norm == "linf" else 0.5 * trial.x[0].numel() ** 0.5
    yield Finding(
        "unbounded attack fails", share(trial.pgd(eps=every)), 0.05, "accuracy in a ball where all grey is,",
        "the gradient is masked: an attack without bounds must succeed",
    )  # fmt: skip


def _of_long_attacks(trial: Trial) -> Iterator[Finding]:
    classes = trial.logits.shape[1]
    pgd, longer = trial.pgd(), trial.pgd(100)
    ce = trial.apgd("ce", 0)
    towards = trial.apgd("dlr" if classes > 3 else "margin", min(9, classes - 1) if classes > 3 else 0)
    yield Finding(
        "cross entropy weak", share(ce) - share(towards), 0.05 + trial.few,
        "accuracy under APGD on cross entropy, minus that towards classes,",
        "report apgd-t or aa, never cross entropy alone",
    )  # fmt: skip
    white = pgd & longer & ce & towards
    square = trial.survives(Square(trial.model, trial.eps, queries=_QUERIES, **trial.how))
    yield Finding(
        "square finds more", share(white & ~square), max(0.002, trial.few),
        "share of images that only square breaks",
        "the gradient is masked: report aa, and attack what masks it",
    )  # fmt: skip
    yield convergence(share(pgd), share(longer), len(pgd))
    passed = pgd & ~(trial.pgd(5) & trial.pgd(10) & trial.pgd(15))
    yield Finding(
        "lost on the way", share(passed), max(0.02, trial.few),
        "share of images broken on the way and whole again",
        "keep every break: apgd-ce or aa, or several restarts",
    )  # fmt: skip
    curve = [share(trial.pgd(eps=trial.eps * scale)) for scale in (0.5, 1.0, 2.0)]
    yield monotony(curve, len(pgd))
    union = AutoAttack(trial.model, trial.eps, mode="quick", **trial.how).judge(trial.x, trial.y).robust
    part = trial.survives(APGD(trial.model, trial.eps, steps=20, **trial.how))
    yield Finding(
        "union above a part", share(torch.tensor(union)) - share(part), 0.0,
        "accuracy under several attacks, minus that under one of them,",
        "the model answers one image in two ways: see randomness and batch dependence",
    )  # fmt: skip


def convergence(robust: float, longer: float, count: int) -> Finding:
    """Whether more steps find more.

    Args:
        robust: accuracy under PGD.
        longer: that under PGD with several times as many steps.
        count: images.
    """
    return Finding(
        "not converged", robust - longer, max(0.01, FEW / count), "accuracy that more steps of PGD take away",
        "take more steps: pgd100, or apgd-ce",
    )  # fmt: skip


def monotony(accuracies: Sequence[float], count: int) -> Finding:
    """Whether the accuracy on ``count`` images, given in the order of the radius, falls with it."""
    rise = max((after - before for before, after in pairwise(accuracies)), default=0.0)
    return Finding(
        "larger ball helps", rise, max(0.01, FEW / count), "accuracy that a larger ball adds",
        "the attack is stuck: more steps, restarts, or aa",
    )  # fmt: skip
