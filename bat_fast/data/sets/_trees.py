"""Data sets that are trees of image files, or the cache that ``bat-fast prepare`` has made of one."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from bat_fast.data.cache import UNKNOWN, Contents, check_fresh, find_cache, load_cache
from bat_fast.data.files import Files
from bat_fast.data.parts import cut_parts
from bat_fast.data.sets._folders import Parts, list_tree
from bat_fast.data.source import Source, Splits

Stats = tuple[tuple[float, ...], tuple[float, ...]]
_MEASURED = 2000  # images of which mean and std are taken


def tree_contents(
    name: str, root: Path, parts: Parts, size: int, exact: bool, stats: Stats | None
) -> Contents:
    """The files of a tree, in the order of their ids: training, published validation, test.

    Args:
        name: of the data set.
        root: the folder that the files start from.
        parts: its folders.
        size: height and width of the decoded images.
        exact: the files have that size already.
        stats: mean and std of each channel; None measures some images.

    Raises:
        ValueError: ``size`` is out of range, or classes are not as they should be.
    """
    if size < 1:
        raise ValueError(f"data.options.size must be at least 1, got {size}")
    classes, *listings = list_tree(root, parts, name)
    names = [file for listing in listings for file in listing.names]
    labels = [label for listing in listings for label in listing.labels]
    train, held = (len(listing.names) for listing in listings[:2])
    return Contents(name, Files(root, names, size, exact), labels, classes, train, stats, held)


def source_of(contents: Contents) -> Source:
    """All samples of a data set, as files."""
    labels, (mean, std) = torch.tensor(contents.labels), contents.stats or UNKNOWN
    every, classes = torch.arange(len(labels)), contents.classes
    return Source(contents.files, labels, every, len(classes), contents.name, classes, mean, std, rows=every)


def load_tree(
    name: str,
    root: Path,
    parts: Parts | None,
    *,
    seed: int,
    size: int,
    exact: bool = False,
    val: float | None = None,
    test: float | None = None,
    cache: bool = True,
    stats: Stats | None = None,
) -> Splits:
    """The splits of a tree of files, or of its cache where there is one.

    Args:
        name, root, parts, size, exact, stats: of `tree_contents`; ``parts`` may be None where ``root`` is a
            cache.
        val, test, seed: of `bat_fast.data.parts.cut_parts`.
        cache: take the cache, where there is one.

    Raises:
        ValueError: an option is out of range, or the cache is damaged, or of other files. One that was made
            with another ``size`` or ``exact`` is passed over with a line on stderr, if there are files.
    """
    found = find_cache(root) if cache else None
    cached = load_cache(found) if found else None
    if cached and (cached.whole.image_size, cached.exact) != (size, exact):
        other = (
            f"cache {found}: its images were prepared with size {cached.whole.image_size} and exact "
            f"{str(cached.exact).lower()}, and data.options says {size} and {str(exact).lower()}"
        )
        if parts is None:
            raise ValueError(f"{other}: give those of the cache")
        print(
            f"{other}; the files are read instead: for a cache like that delete it and prepare again with "
            f"--size {size}{' --exact' if exact else ''}",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        cached = None
    files = None if parts is None else tree_contents(name, root, parts, size, exact, stats)
    if cached:
        whole, train, held, _ = cached
        if files and found:
            check_fresh(found, files)
    else:
        assert files is not None  # only a cache has no parts
        whole, train, held = source_of(files), files.train, files.held
    most = 0 if stats else _MEASURED
    splits = cut_parts(whole, train, held, val=val, test=test, seed=seed, most=most)
    if parts is not None and parts.test not in (None, "test"):  # val/ alone is the test
        splits = splits._replace(test=replace(splits.test, origin=f"{parts.test}/"))
    return splits


def is_cache(root: Path, cache: bool) -> bool:
    """Whether ``root`` is itself a cache that is to be taken: it has no folders of classes."""
    return cache and find_cache(root) == root
