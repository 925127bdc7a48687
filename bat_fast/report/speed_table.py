"""The table of ``bat-fast bench``."""

from __future__ import annotations

from typing import Any

_COLUMNS = ("attack ms", "img/s", "step ms", "img/s", "epoch", "of peak", "MiB", "loss", "robust")


def print_speed(found: dict[str, Any]) -> None:
    """Print what `bat_fast.train.speed.measure_speed` found, one line per variant."""
    print(
        f"{found['model']}, images {found['images']}, {found['attack_steps']} steps, {found['method']}; "
        f"{found['device']}, {found['threads']} threads, torch {found['torch']}"
    )
    width = max(len(row["name"]) for row in found["rows"])
    print(" " * width + "".join(f"{name:>10}" for name in _COLUMNS))
    for row in found["rows"]:
        cells = (
            f"{row['attack_ms']:.1f}",
            f"{row['attack_img_s']:.0f}",
            _number(row["step_ms"], ".1f"),
            _number(row["step_img_s"], ".0f"),
            _duration(row["epoch_s"]),
            f"{row['utilisation']:.0%}",
            _number(row["memory_mib"], ".0f"),
            f"{row['loss']:.4f}",
            f"{row['robust_acc']:.1%}",
        )
        print(f"{row['name']:{width}}" + "".join(f"{cell:>10}" for cell in cells))
    print(
        f"epoch: of {found['data']}; of peak: of a large matrix product in that precision; MiB: growth of\n"
        "memory in one step (others: one attack); loss, robust: of the float32 model on the attacked images "
        f"(clean loss {found['clean_loss']:.4f})"
    )
    for name in weaker(found):
        print(f"NOT AS STRONG: {name}")


def weaker(found: dict[str, Any], share: float = 0.01) -> list[str]:
    """The variants that gain over ``share`` less loss than the first one: their speed does not compare."""
    first, clean = found["rows"][0]["loss"], found["clean_loss"]
    return [row["name"] for row in found["rows"] if first - row["loss"] > share * abs(first - clean)]


def _number(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
