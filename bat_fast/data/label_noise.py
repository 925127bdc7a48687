"""Wrong labels on purpose, to see what a training method memorises."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bat_fast._random import generator
from bat_fast.data.files import decode_rows
from bat_fast.data.source import Source
from bat_fast.ratio import Ratio

_CHUNK = 1000  # images at a time: a set may be larger than the memory


def add_label_noise(source: Source, *, kind: str, rate: float | str, seed: int) -> Source:
    """``source`` with some labels replaced; ``true_labels`` holds what they were.

    Exactly ``round(rate * M)`` samples are drawn, by their ids: neither the order of the source nor the
    device matters.

    Args:
        source: the split.
        kind: ``"symmetric"``: a drawn sample gets any of the classes by chance, its own included, so that
            rate 1 is a random labelling (Dong et al. 2021); ``"nearest"``: the other class whose mean image
            is nearest in l2, a harmful sample in the sense of Xu et al. 2021.
        rate: share of the samples, in [0, 1].
        seed: which samples, and which labels.

    Raises:
        ValueError: an argument is out of range, or a single class leaves no other one.
    """
    rate = float(Ratio(rate))
    if kind not in ("symmetric", "nearest"):
        raise ValueError(f"data.label_noise.kind must be symmetric or nearest, got {kind!r}")
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"data.label_noise.rate must be in [0, 1], got {rate:g}")
    if source.num_classes < 2:
        raise ValueError(f"data.label_noise: {source.name} has a single class")
    rng = generator("label noise", seed)
    count = len(source)
    by_id = source.index.argsort()
    drawn = by_id[torch.randperm(count, generator=rng)[: round(rate * count)]]
    labels = source.labels.clone()
    if kind == "symmetric":
        labels[drawn] = torch.randint(source.num_classes, (len(drawn),), generator=rng)
    else:
        labels[drawn] = _nearest_other(source, drawn)
    return replace(source, labels=labels, true_labels=source.labels)


def _nearest_other(source: Source, rows: Tensor) -> Tensor:
    """The class, other than its own, whose mean image is nearest to each sample, [N] int64.

    Args:
        rows: [N] int64, places of the samples in ``source``.
    """
    width = source.channels * source.image_size**2
    sums = torch.zeros((source.num_classes, width), dtype=torch.float64)
    for part in torch.arange(len(source)).split(_CHUNK):
        sums.index_add_(0, source.labels[part], _pixels(source, part))
    count = source.labels.bincount(minlength=source.num_classes)[:, None]
    means = torch.where(count > 0, sums / count, torch.inf)
    nearest = []
    for part in rows.split(_CHUNK):
        distance = torch.cdist(_pixels(source, part), means).nan_to_num(torch.inf)
        nearest.append(distance.scatter(1, source.labels[part, None], torch.inf).argmin(1))
    return torch.cat(nearest) if nearest else rows


def _pixels(source: Source, where: Tensor) -> Tensor:
    """Some samples, flat, [N, C H W] float64; every store in its own unit.

    Args:
        where: [N] int64, their places in ``source``.
    """
    images, stored = source.images, source.stored(where)
    if isinstance(images, Tensor):
        return images[stored].flatten(1).double()
    pixels, failed = decode_rows(images, stored.tolist())
    if failed:
        raise ValueError(next(iter(failed.values())))
    return pixels.flatten(1).double()
