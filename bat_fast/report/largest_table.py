"""What ``bat-fast bench --largest_batch`` prints."""

from __future__ import annotations

from typing import Any


def print_largest(found: dict[str, Any]) -> None:
    """Print what `bat_fast.measure.largest_batch` found, and what to write in the configuration."""
    print(
        f"{found['model']}, images {found['images']}, {found['method']}, a whole training step; "
        f"{found['device']}, {_gib(found['budget_mib'])} to use"
    )
    print(f"{'batch':>10}{'memory':>12}")
    for row in found["rows"]:
        print(f"{row['batch_size']:>10}{_gib(row['memory_mib']):>12}{_note(row['batch_size'], found)}")
    largest, wanted, parts = found["largest"], found["wanted"], found["micro_batches"]
    if not largest:
        print("nothing fits: try optim.grad_checkpointing, a smaller model or smaller images")
        return
    known = "measured" if any(row["batch_size"] == largest for row in found["rows"]) else "predicted"
    whole = ", the whole training set" if largest + 8 > found["most"] else ""
    print(f"largest batch: {largest}{whole} ({_gib(found['largest_mib'])} {known})")
    if parts == 1:
        print(f"batch_size: {wanted} fits; write batch_size: {largest} for the largest")
    else:
        print(
            f"batch_size: {wanted} does not fit at once; write optim.micro_batches: {parts} to keep it, "
            f"or batch_size: {largest}"
        )
    print(f"validation has a size of its own: eval.batch_size up to {largest} fits too")


def _note(size: int, found: dict[str, Any]) -> str:
    check = found["check"]
    if check is None or check["batch_size"] != size:
        return ""
    error = check["predicted_mib"] / check["measured_mib"] - 1
    return f"   predicted {_gib(check['predicted_mib'])}: {error:+.1%}"


def _gib(mib: float | None) -> str:
    if mib is None:
        return "too much"
    return f"{mib:.0f} MiB" if mib < 10 * 1024 else f"{mib / 1024:.1f} GiB"
