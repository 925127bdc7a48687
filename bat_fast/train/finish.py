"""The end of a run: the best epoch is tested, and everything that people read is written."""

from __future__ import annotations

from typing import Any

from bat_fast.config import TrainConfig
from bat_fast.evaluate.kept import State
from bat_fast.report.curves import draw_curves
from bat_fast.report.words import run_title
from bat_fast.runs.folder import RunFolder
from bat_fast.runs.model_file import metadata_of, save_model
from bat_fast.runs.plain import plain
from bat_fast.runs.results import results_of
from bat_fast.train.alarms import data_warnings
from bat_fast.train.build import Parts
from bat_fast.train.feed import Feed
from bat_fast.train.resume import load_best
from bat_fast.train.snapshot import load_state
from bat_fast.train.validation import accuracies, autoattack, test_attack


def finish(
    config: TrainConfig,
    folder: RunFolder,
    parts: Parts,
    feed: Feed,
    best: dict[str, Any],
    rows: list[dict[str, Any]],
    device: str,
) -> dict[str, Any]:
    """Test the best epoch, write model, results and picture, and return what ``results.json`` holds.

    Several processes test together; the first writes. What AutoAttack finds is kept until the results are
    written, so a test that was killed goes on.

    Args:
        config: of the run.
        folder: with ``checkpoints/best.pt``.
        parts: get the weights of the best epoch.
        feed: the data.
        best: the row of the epoch that validation chose.
        rows: those of all epochs.
        device: where it ran.
    """
    # Other processes may have made up another name for the folder, or have no such disk.
    kept = feed.world.broadcast(folder.tested.absolute())
    state, finished = State(kept if kept.parent.is_dir() else None), False
    try:
        results = _finish(config, folder, parts, feed, best, rows, device, state)
        finished = True
    finally:
        state.end(finished=finished)
    return results


def _finish(
    config: TrainConfig, folder: RunFolder, parts: Parts, feed: Feed, best: dict[str, Any],
    rows: list[dict[str, Any]], device: str, state: State,
) -> dict[str, Any]:  # fmt: skip
    load_state(parts, load_best(folder, best, feed.world))
    test = accuracies(config, feed, parts.evaluated, "test", test_attack(config.eval))
    judged = autoattack(config, feed, parts.evaluated, device, state)
    test |= judged.pop("metrics") if judged else {}
    for line in data_warnings(feed, best | test):
        print(f"WARNING: {line}", flush=True)
    if not feed.world.first:
        return feed.world.broadcast({})
    sizes = {split: len(source) for split, source in feed.splits._asdict().items()}
    if config.eval.choose != "val":
        sizes["val"] = 0
    results = results_of(config, best, rows, test, sizes, device) | ({"autoattack": judged} if judged else {})
    metadata = metadata_of(config, parts.architecture, feed.splits.train.class_names)
    save_model(folder.model, parts.evaluated, metadata)
    folder.write_results(results)
    said: dict[str, Any] = {"title": run_title(plain(config), folder.path), "test": test}
    said["measured"] = "val" if config.eval.choose == "val" else "test"
    draw_curves(rows, best["epoch"], folder.curves, **said)
    return feed.world.broadcast(results)
