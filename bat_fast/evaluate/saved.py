"""The accuracy of a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bat_fast import data
from bat_fast.device import pick_device
from bat_fast.evaluate.accuracy import evaluate
from bat_fast.evaluate.attacks import make_attack
from bat_fast.runs.metrics import metric
from bat_fast.runs.model_file import load_run

SPLITS = ("train", "val", "test")


def evaluate_saved(
    path: str | Path,
    *,
    split: str = "test",
    steps: int = 20,
    attack: str | None = None,
    eps: float | None = None,
    batch_size: int = 256,
    device: str = "auto",
    root: str | Path | None = None,
) -> dict[str, Any]:
    """Clean and robust accuracy of a saved model on a split of the data set it was trained with.

    Args:
        path: a run folder or a ``model.safetensors``.
        split: ``"train"``, ``"val"`` or ``"test"``, as the run split the data.
        steps: PGD steps.
        attack: another attack, by its name (`bat_fast.evaluate.attacks.make_attack`); None is PGD.
        eps: radius in pixels; None takes radius and step of the training. With another radius the step
            keeps its ratio to it.
        batch_size: images at a time; the result does not depend on it.
        root: the folder of the data; None takes that of the training.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Returns:
        ``metrics`` (``SPLIT/clean_acc`` and ``SPLIT/ATTACK_acc`` in [0, 1]), ``n_examples``, ``split``
        and the ``attack``.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    device = pick_device(device)
    model, saved = load_run(path, device)
    radius, step = float(saved["eps"]), saved["step_size"]
    if eps is not None and eps != radius:
        step = step * eps / radius if radius else None
        radius = float(eps)
    name = f"pgd{steps}" if attack is None else attack
    judge = make_attack(name, model, eps=radius, step_size=step, norm=saved["norm"], seed=saved["seed"])
    loader = split_loader(saved, split, batch_size, device, root)
    counts = evaluate(model, loader, judge)
    return {
        "metrics": {
            metric(split, "clean"): counts["clean_acc"],
            metric(split, name): counts["robust_acc"],
        },
        "n_examples": counts["n_examples"],
        "split": split,
        "attack": {
            "norm": judge.norm,
            "eps": radius,
            "step_size": judge.step_size,
            "steps": getattr(judge, "steps", None),
        },
    }


def split_loader(
    saved: dict[str, Any], split: str, batch_size: int, device: str, root: str | Path | None = None
) -> data.Loader:
    """Batches of a split of the data that a model was trained with, in order.

    Args:
        saved: what `load_run` says about the model.
        split: ``"train"``, ``"val"`` or ``"test"``, as the run split the data.
        batch_size: images at a time.
        device: where the batches are.
        root: the folder of the data; None takes that of the training.

    Raises:
        OSError: files are missing or cannot be read.
    """
    return loader_of(saved, split_source(saved, split, root), batch_size, device)


def split_source(saved: dict[str, Any], split: str, root: str | Path | None = None) -> data.Source:
    """A split of the data that a model was trained with; arguments as of `split_loader`."""
    settings = saved["data"]
    known = {key: settings[key] for key in ("root", "options", "label_noise") if key in settings}
    known |= {} if root is None else {"root": root}
    source: data.Source = getattr(data.load(settings["name"], seed=saved["seed"], **known), split)
    return source


def loader_of(saved: dict[str, Any], source: data.Source, batch_size: int, device: str) -> data.Loader:
    """Batches of ``source`` in order, read as the run of a model reads; arguments as of `split_loader`."""
    ways = {key: saved["data"][key] for key in ("workers", "on_corrupt") if key in saved["data"]}
    return data.create_loader(source, batch_size, shuffle=False, seed=0, device=device, **ways)
