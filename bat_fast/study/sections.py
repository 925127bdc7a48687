"""The parts of a study's page, as plain values that the template writes down."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bat_fast import data
from bat_fast.report.gallery import beside, png, reduced
from bat_fast.report.words import run_name
from bat_fast.study import pictures
from bat_fast.study.ablation import Effect
from bat_fast.study.attributions import KINDS, in_words, sparsity
from bat_fast.study.compare import correlations
from bat_fast.study.estimate import worst_error
from bat_fast.study.groups import Groups
from bat_fast.study.scores import Scores
from bat_fast.study.sealed_arrays import Array
from bat_fast.study.summary import points

_SHOWN = 12  # images of a gallery
_LEVELS = (-1.0, 0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 1.01)  # of memorisation
_OF_A_LEVEL = 8
_DECIDING, _DECIDED, _ERRORS = 8, 5, 4.0  # training samples; test images of each; errors of a pair from 0


class Recorded(NamedTuple):
    """A recorded run, its samples in the order of the study."""

    path: Path
    found: dict[str, Array]
    table: dict[str, Array]
    judged: dict[int, dict[str, Array]] | None


def section(title: str, **parts: Sequence[Any]) -> dict[str, Any]:
    """A part of the page: ``pictures``, ``tables``, ``levels``, ``galleries`` and ``notes``, as far as it has
    them."""
    kinds = ("notes", "pictures", "tables", "levels", "galleries")
    return {"title": title, **{kind: parts.get(kind, ()) for kind in kinds}}


def memorised(
    mem: dict[str, Array], found: dict[str, Array], train: data.Source, kind: str
) -> dict[str, Any]:
    """How much is memorised, samples of each level of ``kind``, and the most memorised ones."""
    told = "; ".join(f"{which}: mean {np.nanmean(values):.3f}" for which, values in mem.items())
    galleries = []
    for which, values in mem.items():
        prefix = prefix_of(which)
        best = np.argsort(-np.nan_to_num(values, nan=-1.0), kind="stable")[:_SHOWN]
        notes = [
            f"{values[i]:.2f} ± {found[f'tr_{prefix}mem_se'][i]:.2f}; right in "
            f"{found[f'tr_{prefix}seen'][i]:.0%} with it, {found[f'tr_{prefix}unseen'][i]:.0%} without"
            for i in best
        ]
        galleries.append({"title": f"Most memorised, {which}", "images": _images(train, best, notes)})
    picture = _picture(
        "Memorisation of the training samples",
        pictures.histogram(mem),
        told,
        "Dotted: where atypical begins.",
    )
    levels = _levels(mem[kind], train)
    return section("Memorisation", pictures=[picture], levels=[(kind, levels)], galleries=galleries)


def _levels(values: Array, train: data.Source) -> list[dict[str, Any]]:
    """Some samples of each level of memorisation that has any, evenly spread in their order."""
    order = np.argsort(values, kind="stable")
    order = order[~np.isnan(values[order])]
    places = np.searchsorted(values[order], _LEVELS)
    made = []
    for low, high, begin, end in zip(_LEVELS, _LEVELS[1:], places, places[1:], strict=False):
        if begin < end:
            some = order[np.unique(np.linspace(begin, end - 1, _OF_A_LEVEL).round().astype(int))]
            text = f"{low:.2f} to {high:.2f}" if low > _LEVELS[0] else f"below {high:.2f}"
            text = text if high < 1 else f"above {low:.2f}"
            title = f"{text}: {end - begin} {'sample' if end - begin == 1 else 'samples'}"
            made.append({"title": title, "images": _images(train, some, [f"{values[i]:.2f}" for i in some])})
    return made


def influence(found: dict[str, Array], splits: data.Splits, kind: str, ratio: float) -> dict[str, Any]:
    """Memorised training samples, each with the test images that it decides, where enough models say so.

    There are very many pairs, so that one counts which is far from 0 by the largest error of such models.
    """
    prefix, names, k = prefix_of(kind), splits.train.class_names, int(found["k"])
    train, test, value = (found[f"{prefix}pairs_{name}"] for name in ("train", "test", "influence"))
    error, enough = found[f"{prefix}pairs_influence_se"], _ERRORS * worst_error(k, ratio)
    sure = np.flatnonzero(value[: len(error)] >= enough)  # errors are of the strongest pairs alone
    galleries = []
    for place in dict.fromkeys(train[sure].tolist()):
        mine = sure[train[sure] == place][:_DECIDED]
        notes = [f"influence {value[n]:.2f} ± {error[n]:.2f}" for n in mine]
        own = f"memorised {found[f'tr_{prefix}mem'][place]:.2f}"
        shown = [*_images(splits.train, np.array([place]), [own]), *_images(splits.test, test[mine], notes)]
        title = f"Training sample of {names[int(splits.train.labels[place])]}, and the test images it decides"
        galleries.append({"title": title, "images": shown})
    note = (
        f"{len(value)} pairs of a memorised training sample and a test image that it decides ({kind}). "
        f"{int((value >= enough).sum())} of them are at least {enough:.2f}, {_ERRORS:g} times the largest "
        f"standard error that {k} models can have."
    )
    if not galleries:
        note += " None is shown: with more models there may be some (bat-fast study memorisation --k)."
    return section("Influence", galleries=galleries[:_DECIDING], notes=[note])


def attributed(found: dict[str, Array], names: Sequence[str]) -> dict[str, Any]:
    """How sparse the attributions of models are, and what they look like."""
    rows: list[list[Any]] = []
    for number, run in enumerate(found["names"]):
        row: list[Any] = [run_name(Path(str(run)))]
        for kind in KINDS:
            own, more = sparsity(found, number, kind)
            for mean, signed in ((own, False), (more, True)):
                text = in_words(mean, signed=signed)
                row.append({"value": mean.value, "text": text} if mean.n else text)
        rows.append([*row[:2], "–", row[3], "–"] if number == 0 else row)
    table = {
        "title": f"Gini index of attributions on {found[KINDS[0]].shape[1]} test images",
        "columns": ["run", "gradient", "than the first", "integrated", "than the first"],
        "rows": rows,
        "note": "Higher is sparser: an answer hangs on fewer pixels. ± is half the width of the 95 % "
        "t-interval over the images; differences are taken image by image.",
    }
    images = []
    for place, (image, label) in enumerate(zip(found["images"], found["labels"], strict=True)):
        sizes = found["shown"][:, :, place]
        panels = [image.mean(0), *(one / max(one.max(), 1e-12) for run in sizes for one in run)]
        name = names[int(label)]
        images.append({
            "src": beside([torch.from_numpy(panel)[None] for panel in panels]), "label": name, "note": "",
            "width": len(panels) * (image.shape[-1] + 1) - 1, "height": image.shape[-2],
            "alt": f"An image of {name} and its attributions by {len(sizes)} models.",
        })  # fmt: skip
    told = ", ".join(str(row[0]) for row in rows)
    gallery = {"title": f"The image, then gradient and integrated gradient (white is large) of {told}"}
    return section("Attributions", tables=[table], galleries=[gallery | {"images": images, "large": True}])


def of_run(run: Recorded, groups: Groups, mem: dict[str, Array], train: data.Source) -> dict[str, Any]:
    """What a recorded run does with typical and atypical samples, and whom BAT would trust less."""
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
    gallery = {"title": "Trusted least (highest q)", "images": _images(train, most, notes)}
    return section(f"Run {label}", pictures=shown, tables=[table], galleries=[gallery])


def left_out(shown: list[Effect]) -> dict[str, Any]:
    """What becomes of test images without some training samples."""
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
    return section("Samples left out", pictures=[picture], tables=[table])


def prefix_of(kind: str) -> str:
    """How the values of ``clean`` or ``robust`` answers begin in the file of a study."""
    return "" if kind == "clean" else "robust_"


def _picture(title: str, svg: str, alt: str, note: str = "") -> dict[str, Any]:
    return {"title": title, "svg": svg, "alt": alt, "note": note}


def _images(source: data.Source, places: Array, notes: Sequence[str]) -> list[dict[str, Any]]:
    some, names = source.part(torch.from_numpy(places)), source.class_names
    batch = next(iter(data.create_loader(some, len(places), shuffle=False, seed=0, device="cpu")))
    made = []
    for image, label, index, note in zip(batch.x, batch.y, batch.index, notes, strict=True):
        small, name = reduced(image.contiguous()), names[int(label)]
        made.append({
            "src": png(small), "width": small.shape[-1], "height": small.shape[-2], "label": name,
            "note": f"id {int(index)}, {note}", "alt": f"An image of {name}, {note}.",
        })  # fmt: skip
    return made
