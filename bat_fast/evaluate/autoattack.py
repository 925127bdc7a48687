"""AutoAttack's verdict about a saved model, and about each of its images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bat_fast.evaluate.answers import Tell
from bat_fast.evaluate.saved import evaluate_saved


def evaluate_autoattack(
    path: str | Path,
    *,
    mode: str = "exact",
    norm: str | None = None,
    eps: float | str | None = None,
    n: int | None = None,
    per_sample: str | Path | None = None,
    batch_size: int = 250,
    seed: int = 0,
    split: str = "test",
    device: str = "auto",
    root: str | Path | None = None,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Clean accuracy and robust accuracy under AutoAttack of a saved model.

    Args:
        path, split, norm, eps, n, device, root: as in `bat_fast.evaluate.saved.evaluate_saved`.
        mode: ``"exact"``, ``"replay"`` or ``"quick"``, see `bat_fast.attacks.AutoAttack`.
        per_sample: CSV file to write, with a row for each image: `bat_fast.evaluate.verdicts.COLUMNS`.
        batch_size: images at a time; only the verdicts of ``"replay"`` depend on it.
        seed: of the random numbers.
        tell: as in `bat_fast.attacks.AutoAttack.judge`.

    Returns:
        As `bat_fast.evaluate.judge.evaluate_model`: ``SPLIT/aa_acc`` among the ``metrics``; the upper
        bound of ``"quick"`` is ``SPLIT/aa_quick_acc``.

    Raises:
        ValueError: an argument is out of range. OSError: files are missing or cannot be read or written.
    """
    return evaluate_saved(
        path, attack="aa", mode=mode, norm=norm, eps=eps, n=n, per_sample=per_sample, batch_size=batch_size,
        seed=seed, split=split, device=device, root=root, tell=tell,
    )  # fmt: skip
