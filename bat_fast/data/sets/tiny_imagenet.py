"""Tiny ImageNet: 200 classes, 64x64, from its original folders, re-sorted ones, or the cache of `prepare`."""

from __future__ import annotations

from pathlib import Path

from bat_fast.data.cache import Contents, check_fresh, find_cache, load_cache
from bat_fast.data.files import Files
from bat_fast.data.sets._folders import (
    Listing,
    check_names,
    class_folders,
    existing,
    images_in,
    list_classes,
)
from bat_fast.data.sets._trees import source_of
from bat_fast.data.source import Shape, Splits, divide

SHAPE = Shape(200, 3, 64)
_VAL = 5000
TRAIN_IMAGES = 100_000 - _VAL
# Of the 100 000 training images of the original; spares decoding them to normalise the first batch.
STATS = ((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262))
_ANNOTATIONS = "val_annotations.txt"


def load(seed: int, root: Path | None = None, val: int = _VAL) -> Splits:
    """Train and val come from ``train/``; test is the published ``val/``, whose labels are known.

    Reads the original layout (``wnids.txt``, ``train/WNID/images/``, ``val/images/`` with
    ``val/val_annotations.txt``) and the re-sorted one (``val/WNID/``), and moves nothing. Classes are
    numbered by sorted WNID. A cache that ``bat-fast prepare tiny-imagenet`` has built is taken instead of
    the files.

    Args:
        seed: which training images validate.
        root: the folder ``tiny-imagenet-200``.
        val: how many of them, stratified; 0 validates on none.

    Raises:
        OSError: a folder or file is missing. ValueError: files and labels do not fit together.
    """
    folder = _root(root)
    cache = find_cache(folder)
    if cache is not None:
        if (folder / "train").is_dir():
            check_fresh(cache, contents(folder))
        whole, train, *_ = load_cache(cache)
    else:
        there = contents(folder)
        whole, train = source_of(there), there.train
    return divide(whole, train, _share(val, train), seed)


def contents(root: Path) -> Contents:
    """What a cache of ``root`` holds. Errors are those of `load`."""
    classes, train, test = listings(root)
    files = Files(root, [*train.names, *test.names], SHAPE.image_size)
    labels = [*train.labels, *test.labels]
    return Contents("tiny_imagenet", files, labels, classes, len(train.names), STATS)


def listings(root: Path) -> tuple[tuple[str, ...], Listing, Listing]:
    """The sorted class names, the training files and the published validation files."""
    fix = "--data.root is the folder with train/ and val/ of tiny-imagenet-200.zip"
    existing(root / "train", fix)
    existing(root / "val", fix)
    classes = class_folders(root / "train")
    words = root / "wnids.txt"
    if words.exists():
        listed = words.read_text().split()
        if len(set(listed)) != len(listed):
            twice = next(name for name in listed if listed.count(name) > 1)
            raise ValueError(f"{words}: {twice} is there twice; remove one of the lines")
        if tuple(sorted(listed)) != classes:
            odd = min(set(listed) ^ set(classes))
            raise ValueError(f"{words} and {root / 'train'} differ in class {odd}; restore the missing one")
    train = list_classes(root, "train", classes)
    check_names(train, root)
    return classes, train, _published(root, classes)


def _published(root: Path, classes: tuple[str, ...]) -> Listing:
    if not (root / "val" / _ANNOTATIONS).exists() or not (root / "val" / "images").is_dir():
        if (root / "val" / "images").is_dir():
            raise FileNotFoundError(
                f"{root / 'val' / _ANNOTATIONS} is missing: without it val/images has no labels; restore it "
                "from tiny-imagenet-200.zip"
            )
        listing = list_classes(root, "val", classes)
        check_names(listing, root)
        return listing
    table = root / "val" / _ANNOTATIONS
    number = {name: label for label, name in enumerate(classes)}
    labels: dict[str, int] = {}
    for line, text in enumerate(table.read_text().splitlines(), 1):
        if not text.strip():
            continue
        file, _, rest = text.partition("\t")
        wnid = rest.partition("\t")[0].strip()
        if wnid not in number:
            raise ValueError(
                f"{table}, line {line}: {wnid or text!r} is no class of train/; restore the file"
            )
        if file in labels:
            raise ValueError(f"{table}, line {line}: {file} is there twice; remove one of the lines")
        labels[file] = number[wnid]
    there = set(images_in(root / "val" / "images"))
    for file in sorted(there ^ set(labels)):
        what = "has no line in val_annotations.txt" if file in there else "is missing"
        raise ValueError(f"{root / 'val' / 'images' / file} {what}; restore val/ from tiny-imagenet-200.zip")
    files = sorted(labels)
    return Listing([f"val/images/{file}" for file in files], [labels[file] for file in files])


def _root(root: Path | None) -> Path:
    if root is None:
        raise ValueError("data.root is missing: the folder tiny-imagenet-200, as unpacked from its zip")
    return existing(root, "give the folder tiny-imagenet-200 with --data.root")


def _share(val: int, train: int) -> int:
    """``val``, or a twentieth of a training part that is smaller than the original."""
    return min(val, max(1, train // 20)) if val else 0
