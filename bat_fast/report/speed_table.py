"""The table of ``bat-fast bench``."""

from __future__ import annotations

from typing import Any

_COLUMNS = (
    "", "attack ms", "img/s", "step ms", "img/s", "epoch", "of peak", "MiB", "gaps", "loss", "of gain",
    "robust", "points",
)  # fmt: skip


def print_speed(found: dict[str, Any]) -> None:
    """Print what `bat_fast.measure.speed.measure_speed` found, one line per variant."""
    print(
        f"{found['model']}, images {found['images']}, {found['attack_steps']} steps, {found['method']}; "
        f"{found['device']}, {found['threads']} threads, torch {found['torch']}"
    )
    lines = [_COLUMNS, *(_speed(row) + _strength(row) for row in found["rows"])]
    blank = ("",) * (len(_COLUMNS) - 5)
    lines.append(("eager fp32, other start", *blank, *_strength(found["other_start"])))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, *cells in lines:
        print(
            f"{name:{widths[0]}}" + "".join(f"{c:>{w + 2}}" for c, w in zip(cells, widths[1:], strict=True))
        )
    where = "a new network and random images: --run FOLDER takes those of a run"
    if found["run"] is not None:
        where = f"the network of {found['run']} and {found['judged_images']} of its test images"
    print(
        f"epoch: of {found['data']}; of peak: of a large matrix product in that precision; MiB: growth of\n"
        "memory in one step (others: one attack); gaps: share of attack / step in which the GPU is idle;\n"
        "loss, robust: of the float32 model on the attacked images "
        f"(clean {found['clean_loss']:.4f}, {found['clean_acc']:.1%});\n"
        "of gain, points: their difference from eager fp32, the loss as a share of what that gains.\n"
        f"On {where}."
    )
    for name in weaker(found):
        print(f"NOT AS STRONG: {name}")


def weaker(found: dict[str, Any], share: float = 0.01) -> list[str]:
    """The variants that gain over ``share`` less loss than ``eager fp32``: their speed does not compare."""
    return [row["name"] for row in found["rows"] if (row["gain_change"] or 0.0) < -share]


def _speed(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["name"],
        f"{row['attack_ms']:.1f}",
        f"{row['attack_img_s']:.0f}",
        _number(row["step_ms"], ".1f"),
        _number(row["step_img_s"], ".0f"),
        _duration(row["epoch_s"]),
        f"{row['utilisation']:.0%}",
        _number(row["memory_mib"], ".0f"),
        _gaps(row["attack_gaps"], row["step_gaps"]),
    )


def _strength(row: dict[str, Any]) -> tuple[str, ...]:
    robust, change = row["robust_acc"], _number(row["gain_change"], "+.2%")
    return f"{row['loss']:.4f}", change, f"{robust:.1%}", f"{100 * row['robust_change']:+.1f}"


def _gaps(*shares: float | None) -> str:
    known = [f"{share:.0%}" for share in shares if share is not None]
    return " / ".join(known) or "-"


def _number(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
