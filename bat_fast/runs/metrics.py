"""The names of accuracies, as ``metrics.jsonl`` and ``results.json`` have them: ``SPLIT/ATTACK_acc``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_TITLES = {
    "aa": "AutoAttack",
    "aa_quick": "AutoAttack, quick (upper bound)",
    "aa_plus": "AutoAttack, plus",
    "aa_rand": "AutoAttack, rand",
    "apgd_ce": "APGD-CE",
    "apgd_dlr": "APGD-DLR",
    "apgd_t": "APGD-T",
    "fab_t": "FAB-T",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "apgd": "APGD",
    "fab": "FAB",
    "square": "Square",
    "worst": "worst of all",
}
_FORMER = {"val/autoattack_acc": "val/aa_acc"}
_SUFFIXES = {"any": "any step", "targeted": "targeted"}


def metric(split: str, attack: str) -> str:
    """The accuracy on ``split`` under ``attack``; the attack ``clean`` is none."""
    return f"{split}/{attack}_acc"


def attacks_on(split: str, names: Iterable[str]) -> list[str]:
    """The attacks on ``split`` that have a metric among ``names``, in their order."""
    found = (re.fullmatch(rf"{split}/(.+)_acc", name) for name in names)
    return [match[1] for match in found if match]


def title(attack: str, described: Mapping[str, Any] | None = None) -> str:
    """An attack as people write it: ``PGD-20`` for ``pgd20``.

    Args:
        attack: its name.
        described: what `bat_fast.evaluate.judge.evaluate_model` says of it, for what its name leaves out.
    """
    more = _left_out(attack, described or {})
    if attack in _TITLES:
        return ", ".join([_TITLES[attack], *more])
    match = re.fullmatch(r"([a-z]+)(\d+)(?:x(\d+))?((?:_any|_targeted|_step[\d.]+)*)", attack)
    if match is None:
        return ", ".join([attack, *more])
    named = [f"{match[3]} starts"] if match[3] else []
    named += [_SUFFIXES.get(suffix, f"step {suffix[4:]}") for suffix in match[4].split("_")[1:]]
    return ", ".join([f"{match[1].upper()}-{match[2]}", *named, *more])


def _left_out(attack: str, described: Mapping[str, Any]) -> list[str]:
    """What options have made of an attack beside its name."""
    loss, starts, step = (described.get(name) for name in ("loss", "restarts", "step_size"))
    found = [f"{loss} loss"] if loss and not re.match("(apgd|fab)_", attack) else []
    found += [f"{starts} starts"] if starts and not re.search(r"\dx\d", attack) else []
    usual = float(described.get("eps") or 0) / 4
    if step is not None and re.search(r"\d", attack) and "_step" not in attack:
        found += [f"step {step:.6f}".rstrip("0").rstrip(".")] if abs(step - usual) > 1e-6 * usual else []
    return [*found, "replay"] if described.get("mode") == "replay" else found


def untitled(text: str) -> str:
    """The name of the attack that `title` writes as ``text``, in any case; ``text`` where there is none."""
    known = {shown.lower(): name for name, shown in _TITLES.items()}
    match = re.fullmatch(
        r"([a-z]+-\d+)(?:, (\d+) starts)?((?:, (?:any step|targeted|step [\d.]+))*)", text.lower()
    )
    if match is None:
        return known.get(text.lower(), text)
    said = [part.removesuffix(" step").replace(" ", "") for part in match[3].split(", ")[1:]]
    return "-".join([match[1].replace("-", "") + (f"x{match[2]}" if match[2] else ""), *said])


def renamed(row: dict[str, Any]) -> dict[str, Any]:
    """A row that an earlier version may have written, with the names of today."""
    return {_FORMER.get(name, name): value for name, value in row.items()}


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """The metrics of a line of ``metrics.jsonl``; one that is not finite is ``null`` there, and left out."""
    return {name: value for name, value in row.items() if name != "epoch" and isinstance(value, (int, float))}
