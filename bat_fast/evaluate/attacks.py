"""The attacks that judge a model, by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from bat_fast.attacks import FAB, FGSM, Attack, AutoAttack, Square, by_name
from bat_fast.spelling import hint

# Names that people write for an attack with some of its options.
_WRITTEN: dict[str, tuple[str, dict[str, Any]]] = {
    "apgd-ce": ("apgd", {"loss": "ce"}),
    "apgd-dlr": ("apgd", {"loss": "dlr"}),
    "apgd-t": ("apgd", {"loss": "dlr", "targets": 9}),
    "fab-t": ("fab", {"targets": 9}),
    "aa": ("autoattack", {}),
    "aa-quick": ("autoattack", {"mode": "quick"}),
    "quick": ("autoattack", {"mode": "quick"}),
    "aa-plus": ("autoattack", {"version": "plus"}),
    "aa-rand": ("autoattack", {"version": "rand"}),
}
_FLAGS = {"any": "any_step", "targeted": "targeted"}
_SUFFIXES = r"(?:[-_](?:any|targeted|step\d*\.\d+))*"


def make_attack(
    name: str, model: nn.Module | Callable[..., Any], *, step_size: float | None = None, **options: Any
) -> Attack:
    """The attack ``name`` on ``model``; `bat_fast.runs.metrics.metric` names the accuracy under it.

    Args:
        name: one of `bat_fast.attacks.by_name`, with the number of steps behind it where it takes any, and
            that of restarts: ``pgd20``, ``pgd100x10``, ``fgsm``; or one of ``apgd-ce``, ``apgd-dlr``,
            ``apgd-t``, ``fab-t``, ``aa`` (AutoAttack), ``aa-quick`` or ``quick``, ``aa-plus``, ``aa-rand``.
            Behind those of PGD also ``-any`` (an image broken at any step of any run is broken),
            ``-targeted`` (towards a random other class) and ``-step0.003`` (in pixels): ``pgd50x10-any``.
        model: to attack.
        step_size: step in pixels, for the attacks whose number of steps is named.
        options: of the attack: ``eps``, ``norm``, ``seed``, ...

    Raises:
        ValueError: there is no such attack, or an option is out of range.
    """
    kind, how = _read(name)
    if "steps" in how and not kind.parameter_free:
        how.setdefault("step_size", step_size)
    try:
        return kind(model, **how, **options)
    except TypeError as error:
        refused = re.search(r"(multiple values|unexpected keyword).* '(\w+)'", str(error))
        if refused is None:
            raise
        own = "its own number of steps" if refused[2] == "steps" else f"{refused[2]} of its own"
        has = own if refused[1] == "multiple values" else f"no {refused[2]}"
        plain = re.sub(rf"\d*(x\d+)?{_SUFFIXES}$", "", name)
        raise ValueError(f"attack {name!r}: {plain} has {has}, so leave it out") from None


def attacks_for(
    names: Sequence[str],
    model: nn.Module | Callable[..., Any],
    *,
    optional: dict[str, Any],
    **options: Any,
) -> dict[str, Attack]:
    """The attacks ``names`` by the names of their metrics (``apgd_t``), without ``clean``.

    Args:
        names: as `make_attack` takes them.
        model: to attack.
        optional: options that go to those of the attacks alone that take them, such as ``loss``; each that is
            not None must be taken by one at least.
        options: of all.

    Raises:
        ValueError: as in `make_attack`, or no attack takes an optional one.
    """
    found: dict[str, Attack] = {}
    given = {key: value for key, value in optional.items() if value is not None}
    useless = set(given)
    for name in names:
        if name != "clean":
            known = takes(name)
            some = {key: value for key, value in given.items() if key in known}
            attack = make_attack(name, model, **options, **some)
            found[word_of(name, attack)] = attack
            useless -= known
    if useless:
        raise ValueError(f"{min(useless)}: of the attacks {', '.join(names)} none takes it; leave it out")
    return found


def word_of(name: str, attack: Attack) -> str:
    """What ``attack``, which ``name`` has made, is called in its metric: ``apgd_t``, ``aa_quick``."""
    bound = isinstance(attack, AutoAttack) and attack.mode == "quick"
    return "aa_quick" if bound else name.replace("-", "_")


def _read(name: str) -> tuple[type[Attack], dict[str, Any]]:
    """The kind of attack that ``name`` means, and the options that it says."""
    kinds = by_name()
    match = re.fullmatch(rf"(.+?)(\d*)(?:(?<=\d)x(\d+))?({_SUFFIXES})", name)
    word = match[1] if match else name
    written, how = _WRITTEN.get(word.replace("_", "-"), (word, {}))
    if match is None or written not in kinds:
        known = [*kinds, *_WRITTEN]
        raise ValueError(
            f"there is no attack {name!r}; there are {', '.join(known)} (pgd20 takes 20 steps, pgd20x5 from "
            f"five starts, pgd20x5-any counts each step, pgd20-step0.003 has its own){hint(word, known)}"
        )
    numbers = {"steps": match[2], "restarts": match[3]}
    how = how | {key: int(value) for key, value in numbers.items() if value}
    for suffix in filter(None, re.split("[-_]", match[4])):
        step = suffix.removeprefix("step")
        how |= {_FLAGS[suffix]: True} if suffix in _FLAGS else {"step_size": float(step)}
    return kinds[written], how


def takes(name: str) -> set[str]:
    """Which of ``loss``, ``restarts``, ``step_size``, ``mode`` and ``batch_size`` attack ``name`` takes."""
    kind, how = _read(name)
    if kind is AutoAttack:
        return {"mode", "batch_size"} - set(how)
    found = set() if kind is FGSM else {"restarts"}
    found |= set() if kind in (FAB, Square) else {"loss"}
    found |= {"step_size"} if "steps" in how and not kind.parameter_free else set()
    return found - set(how)
