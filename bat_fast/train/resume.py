"""Where a run goes on: at the newest of its checkpoints that is whole, with whatever is wrong named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bat_fast._seal import digest
from bat_fast.config import TrainConfig
from bat_fast.data import Splits
from bat_fast.runs.checkpoint import load_checkpoint
from bat_fast.runs.folder import RunFolder, line_of
from bat_fast.runs.plain import check_same, plain
from bat_fast.train.longer import check_longer
from bat_fast.world.ranks import ALONE, World

_PARTS = {"epoch", "best", "stopped", "config", "model", "average", "optimizer", "method", "rng"}


def newest(folder: RunFolder) -> tuple[dict[str, Any] | None, list[str]]:
    """The state to go on from, None for a run that has saved none, and a line for each file passed over.

    Where ``last.pt`` is missing or damaged that is the newest of ``best.pt`` and of those kept before it.
    Nothing is written; `put_right` does that once the run has been accepted.

    Raises:
        ValueError: no checkpoint is whole, or the one of the best epoch is not what it was.
    """
    states: dict[Path, dict[str, Any]] = {}
    faults: dict[Path, str] = {}
    for path in (folder.last, folder.best, *folder.earlier()):
        if path not in (folder.last, folder.best) and folder.last in states:
            break  # those are for a need
        try:
            states[path] = _read(path)
        except FileNotFoundError:
            faults[path] = f"{path} is missing"
        except ValueError as error:
            faults[path] = str(error)
    if not states:
        begun = [text for path, text in faults.items() if path.exists()]
        if folder.metrics.exists() and folder.rows():
            begun.append(f"{folder.last} is missing, though {folder.metrics} has epochs")
        if begun:
            raise ValueError(f"{begun[0]}; there is no other to go on from: start another run with --out")
        return None, []
    chosen = max(states, key=lambda path: _progress(states[path], path == folder.last))
    state = states[chosen]
    for path, other in states.items():
        if path != chosen and not _belong_together(state, other, folder.path):
            raise ValueError(f"{path} is of another run than {chosen}: put its own copy in its place")
    _check_best(folder, state, states.get(folder.best), faults)
    lines = [faults[path] for path in faults if path != folder.best]
    if lines:
        lines[-1] += f": going on from {chosen}, after epoch {state['epoch']}"
    return state, lines


def put_right(folder: RunFolder) -> None:
    """Remove a ``last.pt`` that is damaged: it would take the place of the one before, which is whole."""
    try:
        _read(folder.last)
    except FileNotFoundError:
        pass
    except ValueError:
        folder.last.unlink()


def load_best(folder: RunFolder, best: dict[str, Any], world: World = ALONE) -> dict[str, Any]:
    """The checkpoint of the epoch that ``best``, its row, says; the first process reads it for all.

    Raises:
        ValueError: ``best.pt`` is missing, damaged or of another run.
    """
    if not world.first:
        return world.broadcast({})
    try:
        state = _read(folder.best)
    except FileNotFoundError:
        raise ValueError(f"{folder.best} is missing: put a copy of it in its place") from None
    if not _is_of(state, best):
        raise ValueError(f"{folder.best} is not that of epoch {best['epoch']}: put its own copy in its place")
    return world.broadcast(state)


def rows_of(state: dict[str, Any], folder: RunFolder) -> tuple[list[dict[str, Any]], str | None]:
    """The rows of the epochs that are done, and a line where ``metrics.jsonl`` has lost some of them.

    Raises:
        ValueError: they are lost, and the checkpoint is of a version that did not keep them.
    """
    kept, done = state.get("rows"), state["epoch"]
    try:
        found, fault = folder.rows()[:done], f"{folder.metrics} has lost epochs"
    except ValueError as error:
        found, fault = [], str(error)
    if kept is None:
        if len(found) < done:
            raise ValueError(fault)
        return found, None
    same = list(map(line_of, kept)) == list(map(line_of, found))
    return kept, None if same else f"{fault}; it is written again from the checkpoint"


def identity(splits: Splits) -> dict[str, Any]:
    """What a run was trained on, as far as it shows without the pixels: classes, sizes, labels and ids."""
    arrays = [tensor.numpy() for split in splits for tensor in (split.labels, split.index)]
    return {
        "classes": list(splits.train.class_names),
        "sizes": [len(split) for split in splits],
        "labels": digest(*arrays),
    }


def check_state(
    state: dict[str, Any], config: TrainConfig, data: dict[str, Any], steps: int, folder: Path
) -> None:
    """Raise ValueError where what is done would have been different with these settings, or these data.

    Args:
        state: of the run so far.
        config: to go on with.
        data: their `identity`; a run of an older version has recorded none.
        steps: in an epoch.
        folder: of the run, for the message.
    """
    check_same(state["config"], plain(config), folder)
    for name, value in state.get("data", {}).items():
        if value != data.get(name):
            words = {"classes": "names of the classes", "sizes": "sizes of the splits"}
            what = f"its {words.get(name, 'labels, or their order,')} were others ({_short(value)})"
            raise ValueError(f"cannot resume {folder}: the data have changed; {what}; give it the same files")
    before, done = state["config"]["epochs"], state["epoch"] + ("running" in state)
    if before != config.epochs:
        check_longer(config, before, done, steps, folder, stopped=state["stopped"])


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) < 60 else f"{text[:60]}..."


def _read(path: Path) -> dict[str, Any]:
    state = load_checkpoint(path)
    lacking = sorted(_PARTS - state.keys())
    if lacking:
        raise ValueError(f"{path} is no checkpoint of a run: it has no {', '.join(lacking)}")
    return state


def _progress(state: dict[str, Any], is_last: bool) -> tuple[int, int, bool]:
    """What orders checkpoints in time: epochs, then batches; of the same place the last one."""
    running = state.get("running")
    return state["epoch"], running["loader"]["position"] if running else 0, is_last


def _is_of(state: dict[str, Any], best: dict[str, Any]) -> bool:
    row = state["best"]
    return state["epoch"] == best["epoch"] and row is not None and line_of(row) == line_of(best)


def _belong_together(one: dict[str, Any], two: dict[str, Any], folder: Path) -> bool:
    try:
        check_same(one["config"], two["config"], folder)
    except ValueError:
        return False
    lines = [list(map(line_of, state.get("rows", ()))) for state in (one, two)]
    common = min(map(len, lines))
    return lines[0][:common] == lines[1][:common]


def _check_best(
    folder: RunFolder, state: dict[str, Any], found: dict[str, Any] | None, faults: dict[Path, str]
) -> None:
    """Raise ValueError where the run would end without its best epoch."""
    best = state["best"]
    if best is None or (found is not None and _is_of(found, best)):
        return
    fault = faults.get(folder.best, f"{folder.best} is not that of epoch {best['epoch']}")
    twin = None
    for path in (folder.last, *folder.earlier()):
        try:
            twin = path if twin is None and _is_of(_read(path), best) else twin
        except (ValueError, OSError):
            continue
    advice = "put its own copy in its place" if twin is None else f"copy {twin} to it, which is of that epoch"
    raise ValueError(f"{fault}: {advice}")
