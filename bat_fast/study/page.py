"""The page of a memorisation study: one HTML file, made as the report of a run is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bat_fast import data
from bat_fast.config import TrainConfig
from bat_fast.report.gallery import png
from bat_fast.report.page import fill
from bat_fast.report.words import method_text, run_name
from bat_fast.runs.plain import flat, plain
from bat_fast.study import pictures
from bat_fast.study.ablation import Effect, effects
from bat_fast.study.compare import correlations, read_per_sample
from bat_fast.study.estimate import worst_error
from bat_fast.study.folder import StudyFolder
from bat_fast.study.groups import Groups, places_of, read_groups
from bat_fast.study.record import FOLDER, read_judged, read_record
from bat_fast.study.scores import ATYPICAL, Scores
from bat_fast.study.sealed_arrays import Array, read_arrays
from bat_fast.study.summary import points

_SHOWN = 12  # images of a gallery


class _Run(NamedTuple):
    """A recorded run, its samples in the order of the study."""

    path: Path
    found: dict[str, Array]
    table: dict[str, Array]
    judged: dict[int, dict[str, Array]] | None


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
    names = splits.train.class_names
    sections = [_memorised(mem, found, splits.train, names)]
    sections += [_run_section(one, groups, mem, splits.train, names) for one in read]
    if shown:
        sections.append(_ablation(shown))
    return fill(
        "study.html",
        heading=f"What {config.method['name']} memorises of {config.data.name}",
        verdict=verdict,
        sections=sections,
        facts={"study": str(study.path), **{f"run {n}": str(p) for n, p in enumerate(runs, 1)}}
        | flat(plain(config)),
        command=command,
        island=_island(k, counts, shown),
    )


def _read(path: Path, groups: Groups) -> _Run:
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
    return _Run(path, found, table, judged)


def _memorised(
    mem: dict[str, Array], found: dict[str, Array], train: data.Source, names: Sequence[str]
) -> dict[str, Any]:
    told = "; ".join(f"{kind}: mean {np.nanmean(values):.3f}" for kind, values in mem.items())
    galleries = []
    for kind, values in mem.items():
        prefix = "" if kind == "clean" else "robust_"
        best = np.argsort(-np.nan_to_num(values, nan=-1.0), kind="stable")[:_SHOWN]
        notes = [
            f"{values[i]:.2f} ± {found[f'tr_{prefix}mem_se'][i]:.2f}; right in "
            f"{found[f'tr_{prefix}seen'][i]:.0%} with it, {found[f'tr_{prefix}unseen'][i]:.0%} without"
            for i in best
        ]
        galleries.append({"title": f"Most memorised, {kind}", "images": _images(train, best, notes, names)})
    picture = _picture(
        "Memorisation of the training samples",
        pictures.histogram(mem),
        told,
        "Dotted: where atypical begins.",
    )
    return {"title": "Memorisation", "pictures": [picture], "tables": [], "galleries": galleries}


def _run_section(
    run: _Run, groups: Groups, mem: dict[str, Array], train: data.Source, names: Sequence[str]
) -> dict[str, Any]:
    shown, label = [], run_name(run.path)
    if run.judged is not None:
        last = run.judged[max(run.judged)]
        told = ", ".join(
            f"{kind} accuracy of {group} test images {last[f'test_{kind}'][mask].mean():.0%}"
            for kind in ("clean", "robust")
            for group, mask in (("typical", ~groups.test), ("atypical", groups.test))
            if mask.any()
        )
        svg = pictures.by_epoch(run.judged, groups, label)
        shown.append(_picture("Typical and atypical by epoch", svg, f"In the end {told}.", "95 % intervals."))
    margin, q = run.table["margin"], run.table["q"]
    wrong = np.nanmean(margin <= 0, 0)
    told = f"Weighed down: {wrong[~groups.train].mean():.0%} of the time where typical"
    if groups.train.any():
        told += f", {wrong[groups.train].mean():.0%} where atypical"
    svg = pictures.trust(margin, q, groups.mem, groups.train, label)
    note = "BAT gives a weight below 1 to a sample that is predicted wrongly; with another method: it would."
    shown.append(_picture("Whom BAT trusts less", svg, f"{told}.", note))
    scores = Scores(groups.train_ids, mem["clean"], mem.get("robust"))
    rows = [
        [name, *({"value": one.value, "text": f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"}
                 for one in row.values())]
        for name, row in correlations(run.found, scores).items()
    ]  # fmt: skip
    table = {
        "title": "Rank correlation of what the run recorded with memorisation",
        "columns": ["proxy", *mem],
        "rows": rows,
        "note": "Positive where harder samples are more memorised; 95 % intervals of the bootstrap.",
    }
    most = np.argsort(-run.found["q"], kind="stable")[:_SHOWN]
    notes = [f"mean q {run.found['q'][i]:.2f}, wrong in {wrong[i]:.0%} of the epochs" for i in most]
    gallery = {"title": "Trusted least (highest q)", "images": _images(train, most, notes, names)}
    return {"title": f"Run {label}", "pictures": shown, "tables": [table], "galleries": [gallery]}


def _ablation(shown: list[Effect]) -> dict[str, Any]:
    rows = [
        [one.condition, one.group, one.kind, {"value": one.mean.value, "text": points(one.mean)},
         {"value": one.against.value, "text": points(one.against, signed=True)} if one.against else "–"]
        for one in shown
    ]  # fmt: skip
    table = {
        "title": "Accuracy in percent without some samples",
        "columns": ["left out", "test images", "", "accuracy", "minus without as many others"],
        "rows": rows,
        "note": "± is half the width of the 95 % t-interval over seeds; differences are taken seed by seed. "
        "Atypical ones are compared with typical ones, harmful ones with other atypical ones.",
    }
    told = "; ".join(
        f"without {one.condition}, {one.group}, {one.kind}: {points(one.mean)} %" for one in shown
    )
    picture = _picture("The two findings: what fitting atypical samples does", pictures.findings(shown), told)
    return {"title": "Samples left out", "pictures": [picture], "tables": [table], "galleries": []}


def _picture(title: str, svg: str, alt: str, note: str = "") -> dict[str, Any]:
    return {"title": title, "svg": svg, "alt": alt, "note": note}


def _images(
    train: data.Source, places: Array, notes: Sequence[str], names: Sequence[str]
) -> list[dict[str, Any]]:
    some = train.part(torch.from_numpy(places))
    batch = next(iter(data.create_loader(some, len(places), shuffle=False, seed=0, device="cpu")))
    height, width = batch.x.shape[-2:]
    return [
        {
            "src": png(image.contiguous()),
            "width": width,
            "height": height,
            "label": names[int(label)],
            "note": f"id {int(index)}, {note}",
            "alt": f"An image of {names[int(label)]}, {note}.",
        }
        for image, label, index, note in zip(batch.x, batch.y, batch.index, notes, strict=True)
    ]


def _island(k: int, counts: dict[str, int], shown: Sequence[Effect]) -> dict[str, Any]:
    rows = [
        {"left_out": one.condition, "test": one.group, "kind": one.kind, "mean": one.mean.value,
         "half_width": one.mean.half_width, "against": one.against and one.against.value}
        for one in shown
    ]  # fmt: skip
    return {"k": k, "memorised": counts, "ablation": rows}
