"""Splits out of what a program has already: arrays, or anything that gives pairs of image and label."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bat_fast.data.parts import cut_parts
from bat_fast.data.pixels import rgb
from bat_fast.data.source import Source, Splits, pixel_stats

_CHANNELS = (1, 3)  # what tells [M, H, W, C] from [M, C, H, W]


def from_arrays(
    images: Any, labels: Any, *, name: str = "arrays", class_names: Sequence[str] | None = None
) -> Source:
    """A `Source` of images in memory; their ids count from 0.

    Args:
        images: [M, H, W], [M, H, W, C] or [M, C, H, W] with C of 1 or 3: bytes, or floats in [0, 1], as an
            array or a tensor. Floats that are bytes / 255 become bytes, which can be augmented.
        labels: [M] or [M, 1] integers from 0.
        name: of the data set, in messages.
        class_names: one for each class; None numbers those up to the largest label.

    Raises:
        ValueError: shapes, types or values do not fit.
    """
    pixels, y = _pixels(images, name), torch.as_tensor(np.asarray(labels))
    if y.dim() == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dim() != 1 or y.is_floating_point() or y.dtype == torch.bool or len(y) != len(pixels) or not len(y):
        raise ValueError(
            f"data set {name}: labels must be [{len(pixels)}] integers, one for each image, got "
            f"{list(y.shape)} {y.dtype}"
        )
    names = class_names or [str(label) for label in range(int(y.max()) + 1)]
    mean, std = pixel_stats(pixels)
    return Source(pixels, y.long(), torch.arange(len(y)), len(names), name, tuple(names), mean, std)


def from_loader(
    pairs: Iterable[Any], *, name: str = "loader", class_names: Sequence[str] | None = None
) -> Source:
    """A `Source` of what one pass over ``pairs`` gives, kept in memory; ids are the places in that order.

    Args:
        pairs: a ``DataLoader``, a ``Dataset`` or any iterable of ``(x, y)``: an image, [C, H, W], [H, W, C],
            [H, W] or one of Pillow, and its class; or a batch of such. All of one size, without augmentation
            or normalisation, which are the trainer's and the model's, and not shuffled.
        name, class_names: of `from_arrays`.

    Raises:
        ValueError: there is nothing, images differ in size, or as `from_arrays`.
    """
    images: list[Tensor] = []
    labels: list[Tensor] = []
    for x, y, *_ in _items(pairs):
        image, label = _tensor(x), torch.as_tensor(y)
        if label.dim() == 0:
            image, label = image[None], label[None]
        if images and image.shape[1:] != images[0].shape[1:]:
            raise ValueError(
                f"data set {name}: images of {list(images[0].shape[1:])} and {list(image.shape[1:])}; resize "
                "them in the data set's transform"
            )
        images.append(image)
        labels.append(label)
    if not images:
        raise ValueError(f"data set {name}: there is no image")
    return from_arrays(torch.cat(images), torch.cat(labels), name=name, class_names=class_names)


def join(
    train: Source, val: Source | float | None = None, test: Source | float | None = None, *, seed: int = 0
) -> Splits:
    """`Splits` for ``Trainer(splits=...)``; ids are given anew, so that no two samples share one.

    Args:
        train: the training samples.
        val: those that validate, or their share of ``train``, the same of each class; None is 0.1.
        test: those that test, or their share; None is 0.1.
        seed: which training samples validate; which of them test does not depend on it.

    Raises:
        ValueError: a share is out of range, or the parts differ in their images or classes.
    """
    given = [part for part in (val, test) if isinstance(part, Source)]
    most = max([train, *given], key=lambda part: part.num_classes)
    first = 0
    fitted: list[Source] = []
    for part in (train, *given):
        shape, wanted = (part.channels, part.image_size), (train.channels, train.image_size)
        if shape != wanted:
            raise ValueError(
                f"images of {part.name}: {shape} channels and pixels, those of training {wanted}"
            )
        if part.class_names != most.class_names[: part.num_classes]:
            raise ValueError(f"the classes of {part.name} are not those of {most.name}: number them alike")
        fitted.append(
            replace(
                part,
                index=torch.arange(first, first + len(part)),
                num_classes=most.num_classes,
                class_names=most.class_names,
                mean=train.mean,
                std=train.std,
            )
        )
        first += len(part)
    whole, rest = fitted[0], fitted[1:]
    shares = (0.0 if isinstance(part, Source) else part for part in (val, test))
    cut = cut_parts(whole, len(whole), 0, val=next(shares), test=next(shares), seed=seed)
    if isinstance(val, Source):
        cut = cut._replace(val=rest.pop(0))
    return cut._replace(test=rest.pop(0)) if rest else cut


def _items(pairs: Any) -> Iterator[Any]:
    """What ``pairs`` gives; a Dataset knows its length, and need not know where to stop."""
    return iter(pairs) if hasattr(pairs, "__iter__") else (pairs[place] for place in range(len(pairs)))


def _tensor(x: Any) -> Tensor:
    """An image or a batch as it came, but for one of Pillow, which becomes [H, W] or [H, W, 3] bytes."""
    if hasattr(x, "getbands"):
        return torch.from_numpy(np.array(x if x.mode == "L" else rgb(x)))
    return x if isinstance(x, Tensor) else torch.from_numpy(np.asarray(x))


def _pixels(images: Any, name: str) -> Tensor:
    """[M, C, H, W] uint8 or float32; bytes as a view of [M, H, W, C], which loaders gather from."""
    x = (
        images.detach().cpu()
        if isinstance(images, Tensor)
        else torch.from_numpy(np.ascontiguousarray(images))
    )
    got = f"{list(x.shape)} {x.dtype}"
    if x.dim() == 3:
        x = x[..., None]
    last = x.dim() == 4 and x.shape[3] in _CHANNELS
    if x.dim() != 4 or last == (x.shape[1] in _CHANNELS):
        raise ValueError(
            f"data set {name}: images must be [M, H, W, C] or [M, C, H, W] with 1 or 3 channels, got {got}"
        )
    x = x if last else x.permute(0, 2, 3, 1)
    if x.shape[1] != x.shape[2]:
        raise ValueError(f"data set {name}: images must be square, got {x.shape[1]}x{x.shape[2]}: crop them")
    if x.is_floating_point():
        x = x.float()
        bytes_ = (x * 255).round().clamp(0, 255).byte()
        if not torch.equal(bytes_.float() / 255, x):
            return x.permute(0, 3, 1, 2).contiguous()
        x = bytes_
    if x.dtype != torch.uint8:
        raise ValueError(f"data set {name}: images must be uint8 or floats in [0, 1], got {got}")
    return x.contiguous().permute(0, 3, 1, 2)
