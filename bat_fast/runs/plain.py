"""A configuration as files have it, and whether two of them are of the same run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bat_fast.config import TrainConfig
from bat_fast.ratio import Ratio


def plain(config: TrainConfig) -> dict[str, Any]:
    """``config`` as YAML and JSON can hold it; fractions stay text (``8/255``)."""
    return {name: _plain(value) for name, value in asdict(config).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Ratio):
        return value.text if "/" in value.text else float(value)
    return value


_FREE = (  # may change when a run is resumed
    "epochs",
    "device",
    "checkpoint_every",
    "checkpoint_keep",
    "data.root",
    "data.workers",
    "data.loader",
    "eval.autoattack",
    "eval.batch_size",
    "model.init",
    "optim.check_every",
    "optim.compile",
    "optim.grad_checkpointing",
    "optim.on_nonfinite",
)


def check_same(
    before: dict[str, Any], now: dict[str, Any], folder: Path, fixed: Collection[str] = ()
) -> None:
    """Raise ValueError naming the first setting in which the two differ, but for those that may change.

    A setting that an older run did not know had the value that is now its default.

    Args:
        before: settings that ``folder`` was begun with, as `plain` has them.
        now: those that are asked for.
        folder: for the message.
        fixed: what may not change here, though it may when a run goes on.
    """
    old, new = flat(plain(TrainConfig())) | flat(before), flat(now)
    for key in [*new, *(key for key in old if key not in new)]:
        if (key not in _FREE or key in fixed) and old.get(key) != new.get(key):
            raise ValueError(
                f"cannot resume {folder}: {key} was {old.get(key)!r} and is now {new.get(key)!r}; "
                "resume with the same settings, or start another run with --out"
            )


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return found
