"""Verdicts about a model: clean, under several attacks, at several radii."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bat_fast._checks import choice
from bat_fast.attacks import Attack, AutoAttack, untouched
from bat_fast.attacks.autoattack import CLEAN, FIXED
from bat_fast.attacks.modules import as_module
from bat_fast.attacks.room import Room
from bat_fast.attacks.step import check_length, one_number, which_norm
from bat_fast.evaluate.accuracy import batches_of
from bat_fast.evaluate.answers import Tell, words_of
from bat_fast.evaluate.attacks import attacks_for
from bat_fast.evaluate.checks import check_model
from bat_fast.evaluate.columns import columns_of
from bat_fast.evaluate.groups import Sample, first, joined, shared
from bat_fast.evaluate.kept import State
from bat_fast.evaluate.memorised import THRESHOLD, Memorised
from bat_fast.evaluate.verdicts import Verdicts, notes_of
from bat_fast.ratio import Ratio
from bat_fast.runs.table_file import check_table
from bat_fast.world.ranks import ALONE, World

_TOGETHER = 4096  # images whose survivors share batches of AutoAttack; more would only take memory
_CHECKED = 128  # images


def evaluate_model(
    model: nn.Module | Callable[[Tensor], Any],
    loader: Iterable[Any],
    attacks: str | Sequence[str] = ("aa",),
    *,
    eps: float | str | Sequence[float | str] = 8 / 255,
    norm: str = "linf",
    step_size: float | str | None = None,
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
    mem_scores: str | Path | None = None,
    mem_threshold: float = THRESHOLD,
    save_adversarial: str | Path | None = None,
    tell: Tell | None = None,
    state: State | None = None,
    world: World = ALONE,
) -> dict[str, Any]:
    """Accuracy of a model on images as they are and under attacks, each with its 95 % interval.

    Of the model nothing is left changed. Logits that are no numbers are wrong answers. Random numbers depend
    on (seed, sample), so results do not depend on the batch size, but for ``mode="replay"``.

    Args:
        model: takes [N, C, H, W] pixels in [0, 1] and returns logits [N, K], a tuple that begins with them or
            an object that calls them ``logits``; a module or a function. Normalisation lives inside it.
        loader: as `bat_fast.evaluate.evaluate` takes it.
        attacks: a name or several, as `bat_fast.evaluate.attacks.make_attack` takes them; ``clean`` is none.
        eps: radius in pixels, also as text, ``"8/255"``, or several of them: the security curve.
        norm: of the ball.
        step_size: of PGD in pixels at the largest radius, and in proportion at the others; None is eps / 4.
        loss, restarts: of the attacks that have no fixed one.
        mode: of AutoAttack.
        seed: of the random numbers.
        batch_size: images at a time; half of them after each time that memory runs out.
        n: how many images, the first ones; None takes all.
        split: what the images are called in the names of metrics.
        classes: their names; None numbers them.
        per_class: also count by class, with confusion matrices.
        per_sample: CSV file to write, or Parquet by its ending, with a row for each image, where AutoAttack
            judges at one radius.
        checks: ``"cheap"`` or ``"full"`` look on the first 128 images for signs that the model hides its
            gradient (`bat_fast.evaluate.checks`); ``"none"`` does not.
        mem_scores: npz file of memorisation scores (`bat_fast.evaluate.memorised`): also count those above
            ``mem_threshold``, the atypical images, and the others.
        save_adversarial: safetensors file to write, with every image under the first AutoAttack, or the first
            attack, at one radius; all of them are in memory until then.
        tell: as in `bat_fast.attacks.AutoAttack.judge`.
        state: where to keep what is found, and what an evaluation that was killed has found. Whoever gives it
            ends it, when the result is safe.
        world: the processes that judge together: each has all images in its loader and takes its share; all
            return the same, and the first writes files and makes the checks.

    Returns:
        ``metrics`` (``SPLIT/clean_acc``, ``SPLIT/ATTACK_acc``, and ``SPLIT/worst_acc`` of several attacks, in
        [0, 1]) and their ``intervals``, at the largest radius; ``n_examples``, ``split``, ``attack`` (of the
        first attack), ``attacks`` (of all), ``notes``, ``calibration`` (expected calibration error, by the
        names of the metrics; what no part of AutoAttack broke counts as it is). With several radii ``curve``
        has all of them; with AutoAttack ``broken_by`` says which attack broke how many; ``per_class`` and
        ``confusion`` (rows are the true classes) are there on request, and so are ``memorised``
        (``threshold``, and ``n_examples``, ``metrics`` and ``intervals`` of ``typical`` and ``atypical``
        images) and ``checks``, what each found; those that raise are among the notes.

    Raises:
        ValueError, TypeError: an argument is out of range, or there is no image.
    """
    if n is not None and n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    choice("checks", checks, ("none", "cheap", "full"))
    for name, file in (("per_sample", per_sample), ("save_adversarial", save_adversarial)):
        if file is not None and not Path(file).parent.is_dir():
            raise ValueError(f"{name}: there is no folder {Path(file).parent}")
    if per_sample is not None:
        check_table(Path(per_sample))
    module, norm = as_module(model), which_norm(norm)
    optional = {"loss": loss, "restarts": restarts, "mode": mode}
    radii, jobs = _jobs(attacks, module, eps, step_size, optional, norm=norm, seed=seed)
    most = radii[-1][0]
    automatic = {name: job for name, job in jobs[most].items() if isinstance(job, AutoAttack)}
    replay = any(job.mode == "replay" for job in automatic.values())
    if per_sample is not None and (not automatic or len(radii) > 1):
        raise ValueError("per_sample: it has the verdicts of AutoAttack at one radius; ask for --attack aa")
    if save_adversarial is not None and (not jobs[most] or len(radii) > 1):
        raise ValueError("save_adversarial: it has the images of one attack at one radius; ask for one")
    if replay and world.size > 1:
        raise ValueError("mode replay repeats batches of all images: it has no shares; use one process")
    chief = next(iter(automatic), next(iter(jobs[most]), None))
    sample = Sample(_CHECKED if checks != "none" else 0)
    groups = shared(sample.of(first(batches_of(module, loader), n)), world)
    if automatic:  # the official code forms its batches from the survivors of all images
        groups = joined(groups, None if replay else _TOGETHER)
    verdicts = Verdicts(split, {name: words_of(name, job) for name, job in jobs[most].items()})
    notes: list[str] = []
    room = Room(batch_size, FIXED if replay else "", notes.append)
    state = state or State(None)
    asked = {"n": n, "batch_size": batch_size, "split": split, "images": save_adversarial is not None}
    how = {str(radius): {name: _known(job) for name, job in some.items()} for radius, some in jobs.items()}
    kept = state.open(module, asked | {"attacks": how, "world": [world.rank, world.size]})
    memorised = None if mem_scores is None else Memorised(mem_scores, split)
    for number, batch in enumerate(groups):
        scores = memorised and {"memorised": memorised.scores(batch.index, batch.y)}
        place, images = kept.within(f"{number:06}"), chief if save_adversarial is not None else None
        with torch.no_grad(), untouched(module, "eval"):
            found = columns_of(module, batch, jobs, room, place, tell=tell, images=images)
        count = len(verdicts)
        found["position"] = world.rank + world.size * torch.arange(count, count + len(batch.y))
        verdicts.add(found | (scores or {}))
        if per_sample is not None and chief and world.size == 1:
            verdicts.write(Path(per_sample), most, chief)
    shares = world.objects((verdicts.columns, notes))
    verdicts.gather(columns for columns, _ in shares)
    if not len(verdicts):
        raise ValueError(f"split {split!r}: there is no image to evaluate on")
    result: dict[str, Any] = {**verdicts.accuracies(most), "n_examples": len(verdicts), "split": split}
    result["attack"] = _described(next(iter(jobs[most].values()), None), norm, most)
    result["attacks"] = {name: _described(attack, norm, most) for name, attack in jobs[most].items()}
    result["calibration"] = verdicts.calibration(most)
    result["notes"] = [*state.notes, *(note for _, more in shares for note in more), *verdicts.notes(most)]
    if automatic and chief:
        broken = verdicts.broken_by(most, chief)
        result["broken_by"] = {name: broken.count(name) for name in (CLEAN, *automatic[chief].parts)}
        result["notes"] += notes_of(result["broken_by"], len(verdicts), int(verdicts["classes"].max()))
    if mem_scores is not None:
        result["memorised"] = verdicts.parted(most, verdicts["memorised"], mem_threshold)
    if (shown := sample.batch) and most and jobs[most] and world.first:
        ball: dict[str, Any] = {"eps": most, "norm": norm, "seed": seed}
        few = slice(room.size)  # no more than there is memory for
        findings = check_model(module, shown.x[few], shown.y[few], **ball, full=checks == "full")
        result["checks"] = [finding.plain() for finding in findings]
        result["notes"] += [finding.line for finding in findings if finding.raised]
    if len(radii) > 1:
        result["curve"] = [
            {"eps": radius, "written": str(text), **verdicts.accuracies(radius)} for radius, text in radii
        ]
    if world.first and chief and per_sample is not None:
        verdicts.write(Path(per_sample), most, chief)
    if world.first and chief and save_adversarial is not None:
        said = {"eps": str(most), "norm": norm, "split": split}
        verdicts.write_images(Path(save_adversarial), most, chief, said)
    return result | (verdicts.by_class(most, classes) if per_class else {})


def _jobs(
    names: str | Sequence[str],
    model: nn.Module,
    eps: float | str | Sequence[float | str],
    step_size: float | str | None,
    optional: dict[str, Any],
    *,
    norm: str,
    **options: Any,
) -> tuple[list[tuple[float, Any]], dict[float, dict[str, Attack]]]:
    """The radii, each as a number and as it was written, and the attacks by radius and name."""
    radii = sorted({float(radius): radius for radius in several(eps)}.items())
    if not radii:
        raise ValueError("eps: say one radius at least")
    most, jobs = radii[-1][0], {}
    largest = None if step_size is None else one_number("step_size", step_size, "eval")
    for radius, _ in radii:
        check_length("eps", radius, norm)
        step = largest if largest is None or not most else largest * radius / most
        jobs[radius] = attacks_for(
            names, model, optional=optional | {"step_size": step}, eps=radius, norm=norm, **options
        )
    return radii, jobs


def _known(attack: Attack) -> list[Any]:
    """What an attack is known by."""
    return [repr(attack), _described(attack, attack.norm, attack.eps)]


def several(eps: float | str | Sequence[float | str]) -> list[float]:
    """The radii that are meant, one or several.

    Raises:
        ValueError, TypeError: one is no number.
    """
    radii = [eps] if isinstance(eps, str) or not isinstance(eps, Sequence) else eps
    for radius in radii:
        one_number("eps", radius, "eval")
    return [Ratio(radius) if isinstance(radius, str) else radius for radius in radii]


def _described(attack: Attack | None, norm: str, eps: float) -> dict[str, Any]:
    if attack is None:
        return {"norm": norm, "eps": eps}
    shared = {"norm": attack.norm, "eps": attack.eps}
    if isinstance(attack, AutoAttack):
        return {**shared, "mode": attack.mode, "version": attack.version, "seed": attack.seed}
    usual = {"loss": "ce", "restarts": 1, "any_step": False, "targeted": False}
    more = {
        name: value for name, usually in usual.items() if (value := getattr(attack, name, usually)) != usually
    }
    if callable(more.get("loss")):
        more["loss"] = getattr(attack.loss, "__name__", type(attack.loss).__name__)
    return {**shared, "step_size": attack.step_size, "steps": getattr(attack, "steps", None), **more}
