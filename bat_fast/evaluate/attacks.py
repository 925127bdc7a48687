"""The attacks that judge a model, by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from torch import nn

from bat_fast.attacks import FAB, FGSM, Attack, AutoAttack, Square, by_name
from bat_fast.attacks.autoattack import CLEAN
from bat_fast.attacks.options import options_of
from bat_fast.runs.metrics import untitled
from bat_fast.spelling import hint, meant

# Names that people write for an attack with some of its options.
_WRITTEN: dict[str, tuple[str, dict[str, Any]]] = {
    "apgd-ce": ("apgd", {"loss": "ce"}),
    "apgd-dlr": ("apgd", {"loss": "dlr"}),
    "apgd-t": ("apgd", {"loss": "dlr", "targets": 9}),
    "fab-t": ("fab", {"targets": 9}),
    "aa": ("autoattack", {}),
    "aa-quick": ("autoattack", {"mode": "quick"}),
    "aa-plus": ("autoattack", {"version": "plus"}),
    "aa-rand": ("autoattack", {"version": "rand"}),
}
_SAME = {"autoattack": "aa", "quick": "aa-quick"}
_FLAGS = {"any": "any_step", "targeted": "targeted"}
_SUFFIXES = r"(?:[-_](?:any|targeted|step\d*\.?\d+))*"


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
            Or as people write it, ``PGD-20``, ``AutoAttack``: see `spelled`.
        model: to attack.
        step_size: step in pixels, for the attacks whose number of steps is named.
        options: of the attack: ``eps``, ``norm``, ``seed``, ...

    Raises:
        ValueError: there is no such attack, or an option is out of range.
    """
    plain, kind, how, _ = _read(name)
    if kind is None:
        raise ValueError(f"{name!r} is no attack: it names the images as they are")
    if "steps" in how and not kind.parameter_free:
        how.setdefault("step_size", step_size)
    known = options_of(kind)
    for option in {**how, **options}:
        if option not in known:
            own = "its own number of steps" if option == "steps" else f"{option} of its own"
            has = own if option in kind.decides else f"no {option}"
            raise ValueError(f"attack {name!r}: {plain} has {has}, so leave it out")
    return kind(model, **how, **options)


def spelled(name: str) -> str:
    """``name`` as this package writes it, whatever its case and dashes: ``pgd20`` for ``PGD-20``, ``aa`` for
    ``AutoAttack``, and ``pgd50x10-any`` for the ``PGD-50, 10 starts, any step`` of a table.

    Raises:
        ValueError: there is no such attack.
    """
    word, _, _, rest = _read(name)
    return word + rest


def attacks_named(names: str | Iterable[str]) -> list[str]:
    """``names``, or the one that is given, as `spelled` writes them, each once."""
    return list(dict.fromkeys(map(spelled, [names] if isinstance(names, str) else names)))


def is_autoattack(name: str) -> bool:
    """Whether ``name`` is that of AutoAttack, in any of its versions."""
    return _read(name)[1] is AutoAttack


def attacks_for(
    names: str | Sequence[str],
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
    for name in attacks_named(names):
        if name != CLEAN:
            known = takes(name)
            some = {key: value for key, value in given.items() if key in known}
            attack = make_attack(name, model, **options, **some)
            found[word_of(name, attack)] = attack
            useless -= known
    if useless:
        raise ValueError(
            f"{min(useless)}: of the attacks {', '.join(attacks_named(names))} none takes it; leave it out"
        )
    return found


def word_of(name: str, attack: Attack) -> str:
    """What ``attack``, which ``name`` has made, is called in its metric: ``apgd_t``, ``aa_quick``."""
    bound = isinstance(attack, AutoAttack) and attack.mode == "quick"
    return "aa_quick" if bound else spelled(name).replace("-", "_")


class _Read(NamedTuple):
    """A name of an attack."""

    word: str
    """Without numbers and suffixes."""
    kind: type[Attack] | None
    """None where there is no attack."""
    how: dict[str, Any]
    """The options that the name says."""
    rest: str
    """Numbers and suffixes."""


def _read(name: str) -> _Read:
    kinds = by_name()
    known = [CLEAN, *(kind for kind in kinds if kind not in _SAME), *_WRITTEN]
    match = re.fullmatch(rf"(.+?)(\d*)(?:(?<=\d)x(\d+))?({_SUFFIXES})", untitled(name).lower())
    word = match and meant(match[1], [*known, *_SAME])
    if match is None or word is None or (word == CLEAN and match[1] != match[0]):
        near = hint(match[1] if match else name, known)
        raise ValueError(
            f"there is no attack {name!r}; there are {', '.join(known)} (pgd20 takes 20 steps, pgd20x5 from "
            f"five starts, pgd20x5-any counts each step, pgd20-step0.003 has its own){near}"
        )
    word = _SAME.get(word, word)
    written, how = _WRITTEN.get(word, (word, {}))
    numbers = {"steps": match[2], "restarts": match[3]}
    how = how | {key: int(value) for key, value in numbers.items() if value}
    suffixes = list(filter(None, re.split("[-_]", match[4])))
    for suffix in suffixes:
        step = suffix.removeprefix("step")
        how |= {_FLAGS[suffix]: True} if suffix in _FLAGS else {"step_size": float(step)}
    starts = f"x{match[3]}" if match[3] else ""
    return _Read(word, kinds.get(written), how, "-".join([match[2] + starts, *suffixes]))


def takes(name: str) -> set[str]:
    """Which of ``loss``, ``restarts``, ``step_size``, ``mode`` and ``batch_size`` attack ``name`` takes."""
    _, kind, how, _ = _read(name)
    if kind is None:
        return set()
    if kind is AutoAttack:
        return {"mode", "batch_size"} - set(how)
    found = set() if kind is FGSM else {"restarts"}
    found |= set() if kind in (FAB, Square) else {"loss"}
    found |= {"step_size"} if "steps" in how and not kind.parameter_free else set()
    return found - set(how)
