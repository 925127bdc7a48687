"""A recorded run beside the memorisation values of its samples."""

from __future__ import annotations

from pathlib import Path

import yaml

from bat_fast import data
from bat_fast._seal import check_text
from bat_fast.evaluate.subject import splits_of
from bat_fast.runs.folder import RunFolder
from bat_fast.runs.table_file import has_parquet, write_table
from bat_fast.study.curvature import read_curvature
from bat_fast.study.proxies import HARDER, proxies
from bat_fast.study.rank import Correlation, spearman
from bat_fast.study.record import read_record
from bat_fast.study.scores import Scores, read_scores
from bat_fast.study.sealed_arrays import Array, write_arrays
from bat_fast.train.feed import as_chosen


def read_per_sample(run: Path) -> dict[str, Array]:
    """What the record of a run says about each training sample; also written to ``per_sample.npz``, and to
    ``per_sample.parquet`` where pyarrow is installed.

    Returns:
        ``index`` [n], ``labels`` [n], the values of `bat_fast.study.proxies.proxies` [n] and, where it was
        measured, ``curvature`` [n].

    Raises:
        FileNotFoundError: there is no record. ValueError: it is damaged.
    """
    ids, labels, table = read_record(run)
    found = {"index": ids, "labels": labels, **proxies(table["margin"], table["loss"], table["q"])}
    if (bends := read_curvature(run)) is not None:
        found["curvature"] = bends
    write_arrays(run / "per_sample.npz", found)
    file = run / "per_sample.parquet"
    if has_parquet():
        write_table(file, found)
    else:
        file.unlink(missing_ok=True)  # of an earlier record, perhaps
    return found


def train_split(run: Path) -> data.Splits:
    """The data that a run was trained on.

    Raises:
        FileNotFoundError: there is no run. ValueError, OSError: its data cannot be had.
    """
    file = RunFolder(run).config
    if not file.exists():
        raise FileNotFoundError(f"{run} is no run folder: there is no config.yaml in it")
    check_text(file)
    said = yaml.safe_load(file.read_text())
    settings, choose = said["data"], said["eval"].get("choose", "val")  # an older run says nothing
    if settings["name"] == data.GIVEN:
        raise ValueError(f"{run} was trained on data from Python, which a study cannot read again")
    return as_chosen(splits_of(settings, said["seed"]), choose)


def scores_for(run: Path, path: Path) -> Scores:
    """Memorisation values for the samples of a run; arguments and errors of `read_scores`."""
    return read_scores(path, train_split(run).train)


def correlations(found: dict[str, Array], scores: Scores) -> dict[str, dict[str, Correlation]]:
    """Rank correlation of each proxy with each kind of memorisation, positive where harder is more memorised.

    Args:
        found: of `read_per_sample`.
        scores: values by id.
    """
    kinds = ["clean"] if scores.robust is None else ["clean", "robust"]
    return {
        name: {kind: spearman(sign * found[name], scores.of(found["index"], kind)) for kind in kinds}
        for name, sign in HARDER.items()
        if name in found
    }
