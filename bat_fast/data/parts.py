"""The parts of a data set that comes without some of them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bat_fast.data.files import Files
from bat_fast.data.order import stratified
from bat_fast.data.source import Source, Splits, sampled_stats

SHARE = 0.1  # of the training samples that validate, and that test, where nothing else is said


def cut_parts(
    whole: Source, train: int, held: int, *, val: float | None, test: float | None, seed: int, most: int = 0
) -> Splits:
    """The splits of a data set that may come without a validation or test part.

    Published parts are taken as they are; the others are cut from the training samples, the same share of
    each class. What tests is the same for every seed.

    Args:
        whole: the training samples, then a published validation part, then a published test part.
        train: how many samples train, before anything is cut.
        held: how many are the published validation part.
        val: share of the training samples that validate; None is `SHARE`, or the published part.
        test: share of them that test; likewise.
        seed: which of them validate.
        most: measure mean and std on so many training images; 0 leaves them as they are.

    Raises:
        ValueError: a share is out of range, or there is such a part already.
    """
    published = {"val": held > 0, "test": len(whole) > train + held}
    count, origin = {"val": 0, "test": 0}, {"val": "", "test": ""}
    for name, share in (("val", val), ("test", test)):
        if published[name] and share is not None:
            raise ValueError(f"data.options.{name}: {whole.name} has a {name} part of its own; leave it out")
        share = SHARE if share is None else share
        if not 0 <= share < 1:
            raise ValueError(f"data.options.{name} must be in [0, 1), a share of the images, got {share}")
        if not published[name] and share:
            count[name] = max(1, round(share * train))
            origin[name] = f"{share:.0%} of training"
    if sum(count.values()) >= train:
        raise ValueError(
            f"data set {whole.name}: {train} images are too few for training, val and test; lower "
            "data.options.val or data.options.test"
        )
    pool, tested = torch.arange(train), torch.arange(train + held, len(whole))
    if count["test"]:
        pool, tested = stratified(whole.labels[:train], count["test"], 0)
    if most:
        mean, std = sampled_stats(whole.images, whole.stored(pool), most)
        whole = replace(whole, mean=mean, std=std)
    rest, validate = stratified(whole.labels[pool], count["val"], seed)
    validating = torch.arange(train, train + held) if published["val"] else pool[validate]
    return Splits(
        whole.part(pool[rest]),
        replace(whole.part(validating), origin=origin["val"]),
        replace(whole.part(tested), origin=origin["test"]),
    )


def joined(first: Source, second: Source) -> Source:
    """The samples of two parts of one data set, the first ones first, with what else the first one says.

    Raises:
        ValueError: the parts have stores of their own, and these are files.
    """
    every = torch.cat([torch.arange(len(first)), len(first) + torch.arange(len(second))])
    if first.images is second.images:
        images: Tensor | Files = first.images
        rows = torch.cat([part.stored(torch.arange(len(part))) for part in (first, second)])
    elif isinstance(first.images, Tensor) and isinstance(second.images, Tensor):
        parts = [(part.images, part.stored(torch.arange(len(part)))) for part in (first, second)]
        images, rows = torch.cat([store[where] for store, where in parts if isinstance(store, Tensor)]), every
    else:
        raise ValueError(
            f"data set {first.name}: train and val are different folders and cannot be joined: with "
            "eval.choose last or test leave no images for validation (data.options.val 0)"
        )
    true = [part.labels if part.true_labels is None else part.true_labels for part in (first, second)]
    known = first.true_labels is not None or second.true_labels is not None
    return replace(
        first,
        images=images,
        labels=torch.cat([first.labels, second.labels]),
        index=torch.cat([first.index, second.index]),
        true_labels=torch.cat(true) if known else None,
        rows=rows,
    )


def resized(source: Source, size: int) -> Source:
    """``source`` with images that are decoded to another size.

    Raises:
        ValueError: its images are no files, or must keep their size.
    """
    if isinstance(source.images, Tensor):
        raise ValueError(
            f"data.phases.sizes: the images of {source.name} lie in memory, or in a cache, at one size; "
            "it is for files that are resized, as of imagenet and image_folder (--data.options.cache false)"
        )
    if source.images.exact:
        raise ValueError(f"data.phases.sizes: the files of {source.name} keep the size that they have")
    return replace(source, images=replace(source.images, size=size))
