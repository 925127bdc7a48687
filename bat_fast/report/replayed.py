"""What `bat-fast replay` prints."""

from __future__ import annotations

from typing import Any

_SHOWN = 12


def print_replay(found: Any, *, everything: bool = False) -> None:
    """Print a `bat_fast.train.replay.Replay`.

    Args:
        found: of the step.
        everything: all values, and not the bad ones alone.
    """
    weights = "the weights that met it" if found.exact else "the weights of the last checkpoint"
    ids = ", ".join(map(str, found.ids[:_SHOWN])) + (", ..." if len(found.ids) > _SHOWN else "")
    print(f"step {found.step + 1}, epoch {found.epoch + 1}: {len(found.ids)} images ({ids}), with {weights}")
    shown = [look for look in found.looks if everything or look.bad]
    for look in shown if everything else shown[:_SHOWN]:
        print(f"  {look.what:<44}{look.bad:>10,} of {look.values:<10,} else at most {look.largest:.3g}")
    if len(shown) > _SHOWN and not everything:
        print(f"  and {len(shown) - _SHOWN} more: --all shows them")
    first = found.first
    if first is None:
        print("all is finite here: it was this device, this precision, or the weights of a later step")
    else:
        print(f"first: {first.what} ({first.bad:,} of {first.values:,} are NaN or infinite)")
