"""Settings that do nothing where another one has some values. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bat_fast.config import TrainConfig
from bat_fast.config.limits import value_of

ON = ()
"""Any value but 0, none, off and None."""

NEEDS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "data.augment.padding": ("data.augment.pad", ON),
    "data.extra.share": ("data.extra.path", ON),
    "data.label_noise.kind": ("data.label_noise.rate", ON),
    "data.label_noise.seed": ("data.label_noise.rate", ON),
    "optim.beta2": ("optim.name", ("adam", "adamw")),
    "optim.decay": ("optim.weight_decay", ON),
    "optim.peak": ("optim.schedule", ("cyclic",)),
    "optim.milestones": ("optim.schedule", ("multistep", "linear")),
    "optim.gamma": ("optim.schedule", ("multistep",)),
    "optim.awp_start": ("optim.awp", ON),
    "optim.awp_steps": ("optim.awp", ON),
    "optim.awp_norm": ("optim.awp", ON),
    "optim.awp_below": ("optim.awp", ON),
    "optim.average_decay": ("optim.average", ("ema",)),
    "optim.average_start": ("optim.average", ON),
    "eval.val_steps": ("eval.attack", (None,)),
    "eval.test_steps": ("eval.test_attack", (None,)),
}
"""Setting -> the one that it needs, and the values of that with which it has an effect. Those that are wrong
without another one, and not only idle, are in `bat_fast.config.limits`."""


def idle(config: TrainConfig, said: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The settings that somebody has asked for and that do nothing: each by its name, and one line.

    A recipe may keep the numbers of what is switched off beside it, so that ``--optim.awp 0`` is all that an
    ablation has to say, and a run folder keeps them too: a setting of a file counts where nobody has set what
    it needs. One of the command line counts unless what it needs is switched off there as well, as by a
    script that goes through several values.

    Args:
        config: the settings.
        said: those that were written somewhere, by name, and where: empty is the command line.
    """
    default = TrainConfig()
    for name, (needed, values) in NEEDS.items():
        current = value_of(config, needed)
        off = current in (0, "none", None)
        works = not off if values is ON else current in values
        if works or name not in said or value_of(config, name) == value_of(default, name):
            continue
        if needed in said and (said[name] or (off and not said[needed])):
            continue
        set_it = f"set that to {' or '.join(map(str, values))}" if values else "set that"
        cure = "leave one of them out" if None in values else f"{set_it}, or leave {name} out"
        yield name, f"{name} does nothing where {needed} is {_word(current)}: {cure}"


def _word(value: Any) -> str:
    """As people write it."""
    return "not set" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"
