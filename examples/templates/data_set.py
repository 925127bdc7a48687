"""A data set to copy: grey images of 8x8 pixels that show one bar, in noise. The class is its direction.

Copy this file to ``bat_fast/data/sets/bars.py``, and ``bat-fast train --data.name bars`` trains on it: a
module there is a data set by the name of its file, and there is no list to edit. It works from a package of
yours as well, with two lines in your ``pyproject.toml``:

    [project.entry-points."bat_fast.data"]
    bars = "my_package.bars"
"""

from __future__ import annotations

import torch
from torch import Tensor

from bat_fast.data import Shape, Source, Splits, divide, pixel_stats

# What is known before anything is read: ``--dry-run`` and ``bat-fast bench`` build their models from it.
# Leave a line out where the files decide. What `load` gives has to agree: tests/data/test_facts.py compares.
SHAPE = Shape(num_classes=3, in_channels=1, image_size=8)
TRAIN_IMAGES = 240  # with the default options: 300 for training, 60 of which validate

_CLASSES = ("horizontal", "vertical", "diagonal")
_TRAIN, _TEST = 300, 90


def load(seed: int, noise: int = 60, val: int = 60) -> Splits:
    """Train and val come from the first 300 images; test is the last 90.

    The parameters after ``seed`` are the options of the set (``--data.options.noise 90``). Name one ``root``
    (``root: Path | None = None``) and it takes ``--data.root``, the folder of your files.

    Args:
        seed: of the run. It may decide which images validate, never which images there are.
        noise: the brightest noise, in [0, 255].
        val: how many training images validate, the same share of each class.

    Raises:
        ValueError: an option is out of range. Name it as people type it.
    """
    if not 0 <= noise <= 255:
        raise ValueError(f"data.options.noise must be in [0, 255], got {noise}")
    # Your reading goes here: all images, those for training first, then those of the published test part.
    # Pixels stay bytes: loaders keep them on the GPU, augment them there and scale them to [0, 1]. Do not
    # normalise them: models do that, with the mean and std below, and attacks need true pixels.
    images, labels = _draw(_TRAIN + _TEST, noise)
    # Every image has an id that never changes, whatever the seed, the split or the order: augmentation,
    # attacks and methods with a memory know an image by it. The place in the files is the natural one.
    index = torch.arange(len(labels))
    # Training images alone: the statistics must not have seen the test.
    mean, std = pixel_stats(images[:_TRAIN])
    whole = Source(
        images=images,
        labels=labels,
        index=index,
        num_classes=len(_CLASSES),
        name="bars",  # as messages say it
        class_names=_CLASSES,
        mean=mean,
        std=std,
        rows=index,  # image i is at place i; the splits take rows of it, so that the store exists once
    )
    # `Source` has checked shapes, labels and ids. `divide` holds ``val`` images out, by ``seed``. They choose
    # the best epoch, so that the test is looked at once, at the end.
    return divide(whole, train=_TRAIN, val=val, seed=seed)


def _draw(count: int, noise: int) -> tuple[Tensor, Tensor]:
    """Images [count, 1, 8, 8] uint8 and labels [count] int64, numbered from 0."""
    chance = torch.Generator().manual_seed(0)  # not the seed of the run: these are the "files"
    labels = torch.arange(count) % len(_CLASSES)
    images = torch.randint(0, noise + 1, (count, 1, 8, 8), generator=chance, dtype=torch.uint8)
    place = torch.randint(0, 8, (count,), generator=chance)
    along = torch.arange(8)
    for image, label, start in zip(images[:, 0], labels.tolist(), place.tolist(), strict=True):
        if label == 0:
            image[start] = 255
        elif label == 1:
            image[:, start] = 255
        else:
            image[along, (along + start) % 8] = 255
    return images, labels
