"""What the terminal shows while a run trains."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

from bat_fast.runs.metrics import attacks_on, metric

_INTERVAL_S = 0.5  # reading the metrics waits for the GPU, so twice a second is enough


class Readable(Protocol):
    """A meter that can be read within an epoch."""

    def means(self) -> dict[str, float]:
        """Metrics of the epoch so far."""

    def images_per_second(self) -> float:
        """Speed of the epoch so far."""


class Progress:
    """A bar for the running epoch on a terminal, and one line for every epoch that is done.

    Args:
        epochs: epochs of the run.
        steps: steps of an epoch.
        robust: name of the validation's robust accuracy.
        bar: False prints the lines only, as does a stdout that is no terminal.
    """

    def __init__(self, epochs: int, steps: int, robust: str, *, bar: bool = True) -> None:
        self._epochs, self._steps, self._robust = epochs, steps, robust
        self._clean: float | None = None
        self._epoch = self._step = 0
        self._next = 0.0
        self._bar: Any = _rich_bar() if bar and sys.stdout.isatty() else None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start_epoch(self, epoch: int, done: int = 0, steps: int | None = None) -> None:
        """Begin epoch ``epoch``, counted from 1, of which ``done`` steps were made before, of ``steps``."""
        self._epoch, self._step = epoch, done
        self._steps = self._steps if steps is None else steps
        self._next = time.monotonic() + _INTERVAL_S
        if self._bar is not None:
            label = f"epoch {epoch}/{self._epochs}"
            if self._task is None:
                self._task = self._bar.add_task(label, total=self._steps, note="")
            self._bar.reset(self._task, description=label, total=self._steps)

    def step(self, meter: Readable) -> None:
        """Count a step; reads ``meter`` at most twice a second."""
        self._step += 1
        now = time.monotonic()
        if self._bar is None or (now < self._next and self._step < self._steps):
            return
        self._next = now + _INTERVAL_S
        means = meter.means()
        notes = [f"loss {means['train/loss']:.3f}"]
        if self._clean is not None:
            notes.append(f"clean {self._clean:.1%}")
        if "train/robust_acc" in means:
            notes.append(f"robust {means['train/robust_acc']:.1%}")
        notes.append(f"{meter.images_per_second():,.0f} img/s")
        self._bar.update(self._task, completed=self._step, note="  ".join(notes))

    def warn(self, message: str) -> None:
        """Print a line that nobody overlooks."""
        if self._bar is None:
            print(f"WARNING: {message}", flush=True)
        else:
            self._bar.console.print(f"WARNING: {message}", style="bold red", highlight=False, markup=False)

    def end_epoch(self, row: dict[str, Any]) -> None:
        """Print the line of an epoch."""
        self._clean = row.get(metric("val", "clean"), self._clean)
        line = epoch_line(row, self._epochs, self._robust)
        if self._bar is None:
            print(line, flush=True)
        else:
            self._bar.console.print(line, highlight=False)


def epoch_line(row: dict[str, Any], epochs: int, robust: str) -> str:
    """One epoch in one line; accuracies in percent."""
    width = len(str(epochs))
    parts = [f"epoch {row['epoch']:>{width}}/{epochs}", f"loss {row['train/loss']:.4f}"]
    if robust in row:
        (name,) = attacks_on("val", [robust])
        parts += [f"val clean {row[metric('val', 'clean')]:6.2%}", f"val {name} {row[robust]:6.2%}"]
    parts.append(f"{row['perf/img_s']:,.0f} img/s")
    return "  ".join(parts)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, and some ten lines elsewhere, evenly, for a function that is told (done, all)."""
    bar = _rich_bar() if sys.stdout.isatty() else None
    task, said = None, 0

    def show(done: int, total: int) -> None:
        nonlocal task, said
        if bar is not None:
            task = bar.add_task(what, total=total, note="") if task is None else task
            bar.update(task, completed=done)
        elif done // (every := -(-total // 10)) > said // every or said < done == total:
            said = done
            print(f"{done:,} of {total:,} {what}", flush=True)

    with bar or nullcontext():
        yield show


def _rich_bar() -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        transient=True,
    )
