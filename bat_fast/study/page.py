"""The page of a memorisation study: one HTML file, made as the report of a run is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bat_fast import data
from bat_fast.config import TrainConfig
from bat_fast.report.page import fill
from bat_fast.report.words import method_text
from bat_fast.runs.plain import flat, plain
from bat_fast.study import sections
from bat_fast.study.ablation import Effect, effects
from bat_fast.study.attributions import read_attributions
from bat_fast.study.compare import read_per_sample
from bat_fast.study.estimate import worst_error
from bat_fast.study.folder import StudyFolder
from bat_fast.study.groups import Groups, places_of, read_groups
from bat_fast.study.record import FOLDER, read_judged, read_record
from bat_fast.study.scores import ATYPICAL
from bat_fast.study.sealed_arrays import Array, read_arrays
from bat_fast.study.sections import Recorded


def render(
    study: StudyFolder,
    config: TrainConfig,
    splits: data.Splits,
    runs: Sequence[Path],
    kind: str,
    command: str,
) -> str:
    """The page as text; everything that comes from a folder is escaped.

    Args:
        study: with its values estimated.
        config: of its models.
        splits: its data, for the images.
        runs: recorded runs of the same data.
        kind: ``clean`` or ``robust`` memorisation says who is atypical.
        command: that made the page.

    Raises:
        ValueError: the study has no such values, or a run has other samples.
        FileNotFoundError: a run has no record.
    """
    groups, found = read_groups(study, kind), read_arrays(study.scores)
    read = [_read(path, groups) for path in runs]
    shown = list(effects(study, groups))
    k, ratio = int(found["k"]), study.read_plan().ratio
    mem = {"clean": found["tr_mem"]}
    if "tr_robust_mem" in found:
        mem["robust"] = found["tr_robust_mem"]
    counts = {name: int((values > ATYPICAL).sum()) for name, values in mem.items()}
    verdict = [
        f"{k} models of {method_text(config.method)} on {ratio:.0%} of {len(groups.train)} samples: "
        + ", ".join(f"{count} are memorised {name}" for name, count in counts.items())
        + f" (above {ATYPICAL}; standard error at most {worst_error(k, ratio):.3f}).",
        f"Atypical here: {groups.train.sum()} of {len(groups.train)} training samples, and "
        f"{groups.test.sum()} of {len(groups.test)} test images that fewer than {1 - ATYPICAL:.0%} of the "
        f"models get right ({kind}).",
    ]
    made = [
        sections.memorised(mem, found, splits.train, kind),
        sections.influence(found, splits, kind, ratio),
        *(sections.of_run(one, groups, mem, splits.train) for one in read),
    ]
    if shown:
        made.append(sections.left_out(shown))
    if (kept := read_attributions(study.path)) is not None:
        made.append(sections.attributed(kept, splits.train.class_names))
    if lacking := list(_lacking(study, read, shown, kept)):
        made.append(sections.section("Not in this report", notes=lacking))
    return fill(
        "study.html",
        heading=f"What {config.method['name']} memorises of {config.data.name}",
        verdict=verdict,
        sections=made,
        facts={"study": str(study.path), **{f"run {n}": str(p) for n, p in enumerate(runs, 1)}}
        | flat(plain(config)),
        command=command,
        island=_island(k, counts, shown),
    )


def _lacking(
    study: StudyFolder, read: Sequence[Recorded], shown: Sequence[Effect], kept: object
) -> Iterator[str]:
    """What the page could show, and the command that measures it."""
    if not read:
        yield "What a run does with each sample, epoch by epoch: bat-fast study dynamics makes such a run."
    for one in read:
        if one.judged is None:
            yield f"{one.path}: accuracy by epoch, which bat-fast study dynamics measures."
        if "curvature" not in one.found:
            yield f"{one.path}: curvature, which bat-fast study dynamics measures."
    if not shown:
        yield f"What leaving samples out does: bat-fast study ablation {study.path} RUN."
    if kept is None:
        yield (
            f"How sparse attributions are: bat-fast study attributions NATURAL ROBUST --study {study.path}."
        )


def _read(path: Path, groups: Groups) -> Recorded:
    found, (ids, _, table) = read_per_sample(path), read_record(path)
    places = places_of(ids, groups.train_ids)
    found = {name: values[places] for name, values in found.items()}
    table = {name: values[:, places] for name, values in table.items()}
    judged: dict[int, dict[str, Array]] | None = None
    if any((path / FOLDER).glob("judged-*.npz")):
        tested = read_arrays(path / FOLDER / "test-ids.npz")["index"]
        order = {"train": places, "test": places_of(tested, groups.test_ids)}
        judged = {
            epoch: {name: right[order[name.partition("_")[0]]] for name, right in one.items()}
            for epoch, one in read_judged(path).items()
        }
    return Recorded(path, found, table, judged)


def _island(k: int, counts: dict[str, int], shown: Sequence[Effect]) -> dict[str, Any]:
    rows = [
        {"left_out": one.condition, "test": one.group, "kind": one.kind, "mean": one.mean.value,
         "half_width": one.mean.half_width, "against": one.against and one.against.value}
        for one in shown
    ]  # fmt: skip
    return {"k": k, "memorised": counts, "ablation": rows}
