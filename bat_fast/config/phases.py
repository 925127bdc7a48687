"""What settings that are lists must have in common: phases of the data, lines of the rate. Standard library
only.
"""

from __future__ import annotations

from collections.abc import Iterator

from bat_fast.config import TrainConfig


def problems_of_phases(config: TrainConfig) -> Iterator[tuple[str, str]]:
    """The settings that do not fit each other: each by its name, and one line."""
    phases, optim = config.data.phases, config.optim
    count = len(phases.ends) + 1
    if list(phases.ends) != sorted(set(phases.ends)) or (phases.ends and phases.ends[-1] >= config.epochs):
        yield (
            "data.phases.ends",
            f"data.phases.ends must rise and stay below epochs = {config.epochs}, got {list(phases.ends)}",
        )
    for name, values in (("sizes", phases.sizes), ("batches", phases.batches)):
        if values and len(values) != count:
            yield (
                f"data.phases.{name}",
                f"data.phases.{name} needs one more entry than data.phases.ends, {count}, got {list(values)}",
            )
        if values and config.data.extra.path is not None:
            yield f"data.phases.{name}", f"data.phases.{name} does not go with data.extra"
    if phases.batches and optim.micro_batches > min(phases.batches):
        yield "optim.micro_batches", "optim.micro_batches must be at most the least of data.phases.batches"
    marks = [mark if mark > 1 else mark * config.epochs for mark in optim.milestones]
    if optim.schedule == "linear" and len(optim.factors) != len(marks):
        yield "optim.factors", f"optim.factors needs one entry for each of the {len(marks)} optim.milestones"
    if optim.schedule == "linear" and marks != sorted(marks):
        yield "optim.milestones", f"optim.milestones must rise for linear, got {list(optim.milestones)}"
    if optim.factors and optim.schedule != "linear":
        yield "optim.factors", "optim.factors needs optim.schedule linear"
