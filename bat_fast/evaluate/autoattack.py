"""AutoAttack's verdict about a saved model, and about each of its images."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from bat_fast._atomic import atomic_text
from bat_fast.attacks import AutoAttack
from bat_fast.batch import Batch
from bat_fast.device import pick_device
from bat_fast.evaluate.saved import SPLITS, split_loader
from bat_fast.runs.metrics import metric
from bat_fast.runs.model_file import load_run

COLUMNS = ("position", "index", "label", "clean", "robust", "broken_by")
_TOGETHER = 4096  # images whose survivors share batches; more would only take memory
_MASKED = {  # attack: (share of all images that it may break after the others, what more of them means)
    "apgd-t": (0.05, "cross entropy finds few of them: the logits may be scaled"),
    "square": (0.002, "the attacks by gradient missed them: the model may hide its gradient"),
}


def evaluate_autoattack(
    path: str | Path,
    *,
    split: str = "test",
    mode: str = "exact",
    norm: str | None = None,
    eps: float | None = None,
    n: int | None = None,
    per_sample: str | Path | None = None,
    batch_size: int = 250,
    seed: int = 0,
    device: str = "auto",
    root: str | Path | None = None,
    tell: Callable[[str, int, int, int], None] | None = None,
) -> dict[str, Any]:
    """Clean accuracy and robust accuracy under AutoAttack of a saved model.

    Args:
        path: a run folder or a ``model.safetensors``.
        split: ``"train"``, ``"val"`` or ``"test"``, as the run split the data.
        mode: ``"exact"``, ``"replay"`` or ``"quick"``, see `bat_fast.attacks.AutoAttack`.
        norm, eps: of the ball; None takes those of the training. Another norm needs its own radius.
        n: how many images, the first ones; None takes all.
        per_sample: CSV file to write, with a row for each image: ``COLUMNS``.
        batch_size: images at a time; only the verdicts of ``"replay"`` depend on it.
        seed: of the random numbers.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        root: the folder of the data; None takes that of the training.
        tell: as in `bat_fast.attacks.AutoAttack.judge`.

    Returns:
        ``metrics`` (``SPLIT/clean_acc`` and ``SPLIT/aa_acc`` in [0, 1]; the upper bound of ``"quick"``
        is ``SPLIT/aa_quick_acc``), ``n_examples``, ``split``, the ``attack``, ``broken_by`` (how many images
        each attack broke) and ``notes`` (what makes the result doubtful).

    Raises:
        ValueError: an argument is out of range. OSError: files are missing or cannot be read or written.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if n is not None and n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if per_sample is not None and not Path(per_sample).parent.is_dir():
        raise ValueError(f"per_sample: there is no folder {Path(per_sample).parent}")
    device = pick_device(device)
    model, saved = load_run(path, device)
    if eps is None and norm not in (None, saved["norm"]):
        raise ValueError(f"eps: the run was trained for {saved['norm']}, so say the radius in {norm}")
    attack = AutoAttack(
        model,
        float(saved["eps"] if eps is None else eps),
        norm=saved["norm"] if norm is None else norm,
        mode=mode,
        batch_size=batch_size,
        seed=seed,
    )
    rows: list[tuple[Any, ...]] = []
    loader = split_loader(saved, split, batch_size, device, root)
    # The official code forms its batches from the survivors of all images.
    for x, y, index in joined(first(loader, n), None if mode == "replay" else _TOGETHER):
        verdicts = attack.judge(x, y, index, tell=tell)
        known = zip(
            index.tolist(), y.tolist(), verdicts.clean, verdicts.robust, verdicts.broken_by, strict=True
        )
        rows += [(len(rows) + place, *row) for place, row in enumerate(known)]
        if per_sample is not None:
            atomic_text(Path(per_sample), _table(rows))
    if not rows:
        raise ValueError(f"split {split!r}: there is no image to evaluate on")
    broken = {name: sum(row[5] == name for row in rows) for name in ("clean", *attack.parts)}
    judged = "aa_quick" if mode == "quick" else "aa"
    return {
        "metrics": {
            metric(split, "clean"): sum(row[3] for row in rows) / len(rows),
            metric(split, judged): sum(row[4] for row in rows) / len(rows),
        },
        "n_examples": len(rows),
        "split": split,
        "attack": {
            "norm": attack.norm, "eps": attack.eps, "mode": mode, "version": attack.version, "seed": seed
        },
        "broken_by": broken,
        "notes": _notes(broken, len(rows), int(saved["num_classes"])),
    }  # fmt: skip


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


def _table(rows: list[tuple[Any, ...]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([int(value) if isinstance(value, bool) else value for value in row] for row in rows)
    return text.getvalue()


def _notes(broken: dict[str, int], count: int, classes: int) -> list[str]:
    notes = [
        f"{name} broke {broken[name] / count:.1%} of all images after the attacks before it: {meaning}"
        for name, (most, meaning) in _MASKED.items()
        if broken.get(name, 0) > most * count
    ]
    if classes < 4:
        notes.append(f"dlr is not defined for {classes} classes; apgd-t climbed the margin in its place")
    return notes
