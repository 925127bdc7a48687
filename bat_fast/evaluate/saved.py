"""The accuracy of a saved model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bat_fast.attacks.autoattack import CLEAN
from bat_fast.attacks.step import which_norm
from bat_fast.device import pick_device
from bat_fast.evaluate.attacks import attacks_named, is_autoattack, takes
from bat_fast.evaluate.judge import evaluate_model, several
from bat_fast.evaluate.subject import SPLITS, Foreign, open_subject, split_loader
from bat_fast.world.ranks import ALONE, World

__all__ = ["SPLITS", "evaluate_saved", "split_loader"]


def evaluate_saved(
    path: str | Path,
    *,
    split: str = "test",
    steps: int = 20,
    attack: str | Sequence[str] | None = None,
    eps: float | str | Sequence[float | str] | None = None,
    norm: str | None = None,
    step_size: float | str | None = None,
    seed: int | None = None,
    batch_size: int = 256,
    device: str = "auto",
    root: str | Path | None = None,
    foreign: Foreign | None = None,
    world: World = ALONE,
    **options: Any,
) -> dict[str, Any]:
    """Clean and robust accuracy of a saved model on a split of the data set it was trained with.

    Args:
        path: what `bat_fast.evaluate.subject.open_subject` takes.
        split: ``"train"``, ``"val"`` or ``"test"``, as the run split the data.
        steps: PGD steps.
        attack: other attacks, one or several, by name (`bat_fast.evaluate.attacks.make_attack`); ``clean`` is
            none; None is PGD.
        eps: radius in pixels, or several; None takes radius and step of the training. With another radius the
            step keeps its ratio to it.
        norm: of the ball; None takes that of the training. Another norm needs its own radius.
        step_size: of PGD in pixels, at the largest radius.
        seed: of the random numbers; None takes that of the training, of AutoAttack 0.
        batch_size: images at a time; the result does not depend on it, but for ``mode="replay"``.
        root: the folder of the data; None takes that of the training.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; of several processes each takes its own GPU.
        foreign: how to build a model that a run did not leave, and its data.
        world: the processes that judge the model together.
        options: of `bat_fast.evaluate.judge.evaluate_model`.

    Returns:
        As `bat_fast.evaluate.judge.evaluate_model`.

    Raises:
        ValueError: an argument is out of range. OSError: files are missing or cannot be read or written.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if steps < 0:
        raise ValueError(f"steps must be at least 0, got {steps}")
    names = attacks_named(f"pgd{steps}" if attack is None else attack)
    norm = norm if norm is None else which_norm(norm)
    device = pick_device(device, world.local_rank, world.local_size)
    subject = open_subject(path, device=device, root=root, foreign=foreign)
    saved = subject.described
    if eps is None and saved["eps"] is None:
        if names != [CLEAN]:
            raise ValueError(f"eps: nobody says which radius {path} was trained for; say one, such as 8/255")
        eps = 0.0
    if eps is None and norm not in (None, saved["norm"]):
        raise ValueError(f"eps: the run was trained for {saved['norm']}, so say the radius in {norm}")
    radii = several(saved["eps"] if eps is None else eps)
    trained, same = float(saved["eps"] or 0), norm in (None, saved["norm"])
    if step_size is None and trained and same and any("step_size" in takes(name) for name in names):
        step_size = float(saved["step_size"]) * max(map(float, radii)) / trained
    if seed is None:
        seed = 0 if any(map(is_autoattack, names)) else saved["seed"]
    return evaluate_model(
        subject.model,
        subject.loader(split, batch_size),
        names,
        eps=radii,
        norm=saved["norm"] if norm is None else norm,
        step_size=step_size,
        seed=seed,
        batch_size=batch_size,
        split=split,
        classes=saved.get("classes"),
        world=world,
        **options,
    )
