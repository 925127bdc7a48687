"""Verdicts about a model: clean, under several attacks, at several radii."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bat_fast._checks import choice
from bat_fast.attacks import Attack, AutoAttack, untouched
from bat_fast.attacks.autoattack import CLEAN
from bat_fast.attacks.modules import as_module
from bat_fast.attacks.search import exact_logits
from bat_fast.batch import Batch
from bat_fast.evaluate.accuracy import batches_of
from bat_fast.evaluate.attacks import attacks_for
from bat_fast.evaluate.checks import check_model
from bat_fast.evaluate.verdicts import NO_ANSWER, Verdicts, notes_of

_TOGETHER = 4096  # images whose survivors share batches of AutoAttack; more would only take memory
_CHECKED = 128  # images
Tell = Callable[[str, int, int, int], None]


def evaluate_model(
    model: nn.Module | Callable[[Tensor], Any],
    loader: Iterable[Any],
    attacks: Sequence[str] = ("aa",),
    *,
    eps: float | Sequence[float] = 8 / 255,
    norm: str = "linf",
    step_size: float | None = None,
    loss: str | None = None,
    restarts: int | None = None,
    mode: str | None = None,
    seed: int = 0,
    batch_size: int = 250,
    n: int | None = None,
    split: str = "test",
    classes: Sequence[str] | None = None,
    per_class: bool = False,
    per_sample: str | Path | None = None,
    checks: str = "none",
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Accuracy of a model on images as they are and under attacks, each with its 95 % interval.

    Of the model nothing is left changed. Logits that are no numbers are wrong answers. Random numbers depend
    on (seed, sample), so results do not depend on the batch size, but for ``mode="replay"``.

    Args:
        model: takes [N, C, H, W] pixels in [0, 1] and returns logits [N, K], a tuple that begins with them or
            an object that calls them ``logits``; a module or a function. Normalisation lives inside it.
        loader: as `bat_fast.evaluate.evaluate` takes it.
        attacks: names, as `bat_fast.evaluate.attacks.make_attack` takes them; ``clean`` is none.
        eps: radius in pixels, or several of them: the security curve.
        norm: of the ball.
        step_size: of PGD in pixels at the largest radius, and in proportion at the others; None is eps / 4.
        loss, restarts: of the attacks that have no fixed one.
        mode: of AutoAttack.
        seed: of the random numbers.
        batch_size: of AutoAttack.
        n: how many images, the first ones; None takes all.
        split: what the images are called in the names of metrics.
        classes: their names; None numbers them.
        per_class: also count by class, with confusion matrices.
        per_sample: CSV file to write, with a row for each image, where AutoAttack judges at one radius.
        checks: ``"cheap"`` or ``"full"`` look on the first 128 images for signs that the model hides its
            gradient (`bat_fast.evaluate.checks`); ``"none"`` does not.
        tell: as in `bat_fast.attacks.AutoAttack.judge`.

    Returns:
        ``metrics`` (``SPLIT/clean_acc``, ``SPLIT/ATTACK_acc``, and ``SPLIT/worst_acc`` of several attacks, in
        [0, 1]) and their ``intervals``, at the largest radius; ``n_examples``, ``split``, ``attack`` (of the
        first attack), ``attacks`` (of all), ``notes``. With several radii ``curve`` has all of them; with
        AutoAttack ``broken_by`` says which attack broke how many; ``per_class`` and ``confusion`` (rows are
        the true classes) are there on request, and so are ``checks``, what each found; those that raise are
        among the notes.

    Raises:
        ValueError, TypeError: an argument is out of range, or there is no image.
    """
    if n is not None and n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    choice("checks", checks, ("none", "cheap", "full"))
    if per_sample is not None and not Path(per_sample).parent.is_dir():
        raise ValueError(f"per_sample: there is no folder {Path(per_sample).parent}")
    radii = sorted({float(radius): radius for radius in several(eps)}.items())
    if not radii:
        raise ValueError("eps: say one radius at least")
    module, most = as_module(model), radii[-1][0]
    jobs: dict[float, dict[str, Attack]] = {}
    for radius, _ in radii:
        step = step_size if step_size is None or not most else step_size * radius / most
        optional = {"loss": loss, "restarts": restarts, "mode": mode, "step_size": step}
        jobs[radius] = attacks_for(attacks, module, optional=optional, eps=radius, norm=norm, seed=seed)
        for attack in jobs[radius].values():
            if isinstance(attack, AutoAttack):
                attack.batch_size = batch_size
    automatic = [attack for attack in jobs[most].values() if isinstance(attack, AutoAttack)]
    if per_sample is not None and (not automatic or len(radii) > 1):
        raise ValueError("per_sample: it has the verdicts of AutoAttack at one radius; ask for --attack aa")
    groups = first(batches_of(module, loader), n)
    if automatic:  # the official code forms its batches from the survivors of all images
        groups = joined(groups, None if automatic[0].mode == "replay" else _TOGETHER)
    verdicts = Verdicts(split, [radius for radius, _ in radii])
    seen: list[Batch] = []
    for batch in groups:
        if checks != "none" and sum(len(part.y) for part in seen) < _CHECKED:
            seen.append(Batch(*(tensor[:_CHECKED] for tensor in batch)))
        with torch.no_grad(), untouched(module, "eval"):
            verdicts.add_images(batch, predicted(module, batch.x))
            for radius, some in jobs.items():
                for name, attack in some.items():
                    verdicts.add(radius, name, *_judged(module, attack, batch, tell))
        if per_sample is not None:
            verdicts.write(Path(per_sample), most)
    if not len(verdicts):
        raise ValueError(f"split {split!r}: there is no image to evaluate on")
    result: dict[str, Any] = {**verdicts.accuracies(most), "n_examples": len(verdicts), "split": split}
    result["attack"] = _described(next(iter(jobs[most].values()), None), norm, most)
    result["attacks"] = {name: _described(attack, norm, most) for name, attack in jobs[most].items()}
    result["notes"] = verdicts.notes()
    if automatic:
        broken = verdicts.parts(most)
        result["broken_by"] = {name: broken.count(name) for name in (CLEAN, *automatic[0].parts)}
        result["notes"] += notes_of(result["broken_by"], len(verdicts))
    if seen and most and jobs[most]:
        shown = Batch(*(torch.cat(tensors)[:_CHECKED] for tensors in zip(*seen, strict=True)))
        ball: dict[str, Any] = {"eps": most, "norm": norm, "seed": seed}
        findings = check_model(module, shown.x, shown.y, **ball, full=checks == "full")
        result["checks"] = [finding.plain() for finding in findings]
        result["notes"] += [finding.line for finding in findings if finding.raised]
    if len(radii) > 1:
        result["curve"] = [
            {"eps": radius, "written": str(text), **verdicts.accuracies(radius)} for radius, text in radii
        ]
    return result | (verdicts.by_class(most, classes) if per_class else {})


def predicted(model: nn.Module, x: Tensor) -> Tensor:
    """The class [N] of each of ``x`` [N, C, H, W] on the CPU, ``NO_ANSWER`` where a logit is no number."""
    top, label = exact_logits(model, x).max(1)
    return label.masked_fill(top.isnan(), NO_ANSWER).cpu()


def _judged(
    model: nn.Module, attack: Attack, batch: Batch, tell: Tell | None
) -> tuple[Tensor, list[str] | None]:
    """The predicted classes under ``attack``, and which part of AutoAttack broke each image."""
    if not isinstance(attack, AutoAttack):
        return predicted(model, attack(batch.x, batch.y, index=batch.index, draw=0)), None
    found = attack.judge(batch.x, batch.y, batch.index, tell=tell)
    parts = found.adv.split(attack.batch_size)
    return torch.cat([predicted(model, part) for part in parts]), found.broken_by


def several(eps: float | Sequence[float]) -> Sequence[float]:
    """The radii that are meant: one, or several."""
    return list(eps) if isinstance(eps, Sequence) else [eps]


def _described(attack: Attack | None, norm: str, eps: float) -> dict[str, Any]:
    if attack is None:
        return {"norm": norm, "eps": eps}
    shared = {"norm": attack.norm, "eps": attack.eps}
    if isinstance(attack, AutoAttack):
        return {**shared, "mode": attack.mode, "version": attack.version, "seed": attack.seed}
    usual = {"restarts": 1, "any_step": False, "targeted": False}
    more = {
        name: value for name, usually in usual.items() if (value := getattr(attack, name, usually)) != usually
    }
    return {**shared, "step_size": attack.step_size, "steps": getattr(attack, "steps", None), **more}


def first(loader: Iterable[Batch], n: int | None) -> Iterator[Batch]:
    """The batches of ``loader`` up to the ``n``-th image."""
    left = n
    for batch in loader:
        if left is None:
            yield batch
            continue
        yield Batch(*(tensor[:left] for tensor in batch))
        left -= min(left, len(batch.y))
        if not left:
            return


def joined(loader: Iterable[Batch], least: int | None) -> Iterator[Batch]:
    """Batches of at least ``least`` images but for the last one; None joins all."""
    kept: list[Batch] = []
    for batch in loader:
        kept.append(batch)
        if least is not None and sum(len(part.y) for part in kept) >= least:
            yield Batch(*(torch.cat(tensors) for tensors in zip(*kept, strict=True)))
            kept = []
    if kept:
        yield Batch(*(torch.cat(tensors) for tensors in zip(*kept, strict=True)))
