"""What becomes of typical and atypical test images when some training samples are left out.

The two findings of Xu et al. 2021 (arXiv:2106.04794), of which the abstract alone was at hand, as an
experiment. Models are trained on ``all`` samples, without the ``atypical`` ones, without as many ``typical``
ones by chance, without the ``harmful`` quarter of the atypical ones (those with the highest mean q in a
recorded run), and without as many ``benign`` ones, by chance from the rest of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from bat_fast._random import seed_of
from bat_fast.config import TrainConfig
from bat_fast.report.intervals import Mean, mean_of
from bat_fast.study.folder import StudyFolder
from bat_fast.study.groups import Groups
from bat_fast.study.jobs import read_splits
from bat_fast.study.lean import answers
from bat_fast.study.sealed_arrays import Array, read_arrays, write_arrays

CONDITIONS = ("all", "atypical", "typical", "harmful", "benign")
COMPARED = (("atypical", "typical"), ("harmful", "benign"))
"""Left out, and what it is compared with: as many samples of the other kind."""


class Effect(NamedTuple):
    """Accuracy of models without some samples, on a group of test images."""

    condition: str
    group: str
    kind: str
    mean: Mean
    against: Mean | None = None
    """Minus that of the condition it is compared with, seed by seed."""


def left_out(groups: Groups, q: Array | None, condition: str, seed: int) -> Array:
    """Places in the training split that a condition leaves out.

    Args:
        groups: of the study.
        q: [n] mean q of each sample; None has no ``harmful`` and ``benign``.
        condition: one of `CONDITIONS`.
        seed: of what is drawn by chance.
    """
    rng = np.random.default_rng(seed_of("ablation", condition, seed))
    atypical, typical = np.flatnonzero(groups.train), np.flatnonzero(~groups.train)
    if condition == "all":
        return atypical[:0]
    if condition == "atypical":
        return atypical
    if condition == "typical":
        return rng.permutation(typical)[: len(atypical)]
    assert q is not None
    order = atypical[np.argsort(-q[atypical], kind="stable")]
    quarter = max(1, len(order) // 4)
    return order[:quarter] if condition == "harmful" else rng.permutation(order[quarter:])[:quarter]


def ablate(
    study: StudyFolder,
    config: TrainConfig,
    groups: Groups,
    q: Array | None,
    seeds: Sequence[int],
    device: str = "auto",
    tell: Callable[[int, int], object] | None = None,
) -> None:
    """Train what is not there yet: ``ablation/CONDITION-SEED.npz`` in the folder of the study.

    Raises:
        ValueError: fewer than 4 samples are atypical, or others than when the ablation began, or harmful.
    """
    if groups.train.sum() < 4:
        raise ValueError(
            f"{groups.train.sum()} samples are atypical: too few to leave out; take --kind robust"
        )
    splits, attack = read_splits(config), study.read_plan().attack
    folder = study.path / "ablation"
    folder.mkdir(exist_ok=True)
    jobs = [(condition, seed) for seed in seeds for condition in CONDITIONS]
    for number, (condition, seed) in enumerate(jobs):
        file = folder / f"{condition}-{groups.kind}-{seed}.npz"
        before = read_arrays(file) if file.exists() else None
        if before is not None and (before["atypical"] != np.packbits(groups.train)).any():
            raise ValueError(
                f"{folder} was made when other samples were atypical (the study has got more models): "
                "delete it"
            )
        keep = np.ones(len(splits.train), bool)
        wanted = q is not None or condition not in COMPARED[1]
        if wanted:
            keep[left_out(groups, q, condition, seed)] = False
        if wanted and before is not None and (before["left_out"] != np.packbits(~keep)).any():
            raise ValueError(
                f"{file} was made with another RUN, in which other samples were harmful: give that one, or "
                "delete the files of harmful and benign"
            )
        if wanted and before is None:
            some = splits._replace(train=splits.train.part(torch.from_numpy(np.flatnonzero(keep))))
            found = answers(replace(config, seed=seed), some, attack, device, whole=splits.train)
            write_arrays(
                file, {"left_out": np.packbits(~keep), "atypical": np.packbits(groups.train), **found}
            )
        if tell is not None:
            tell(number + 1, len(jobs))


def effects(study: StudyFolder, groups: Groups) -> Iterator[Effect]:
    """Accuracy of each condition on typical and atypical test images, with t-intervals over the seeds."""
    found: dict[tuple[str, str, str], dict[int, float]] = {}
    for file in sorted((study.path / "ablation").glob(f"*-{groups.kind}-*.npz")):
        condition, _, seed = file.stem.rsplit("-", 2)
        bits = read_arrays(file)
        for kind in ("clean", "robust"):
            if f"test_{kind}" not in bits:
                continue
            right = np.unpackbits(bits[f"test_{kind}"], count=len(groups.test))
            for group, mask in (("typical", ~groups.test), ("atypical", groups.test)):
                if mask.any():
                    by_seed = found.setdefault((condition, group, kind), {})
                    by_seed[int(seed)] = float(right[mask].mean())
    other = dict(COMPARED)
    for condition in CONDITIONS:
        for (name, group, kind), by_seed in found.items():
            if name != condition:
                continue
            there = found.get((other.get(condition, ""), group, kind), {})
            shared = [by_seed[seed] - there[seed] for seed in by_seed if seed in there]
            against = mean_of(shared) if shared else None
            yield Effect(condition, group, kind, mean_of(list(by_seed.values())), against)
