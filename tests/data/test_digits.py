"""The digits and their split."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from bat_fast.data import load, names


def test_the_split_is_disjoint_and_complete():
    splits = load("digits", seed=3)
    assert [len(part) for part in splits] == [1258, 180, 359]
    index = torch.cat([part.index for part in splits])
    assert torch.equal(index.sort().values, torch.arange(1797))


def test_the_index_is_the_row_of_the_file_whatever_the_seed():
    bunch = load_digits()
    for seed in (0, 7):
        for part in load("digits", seed=seed):
            assert part.images.shape == (len(part), 1, 8, 8)
            assert part.images.dtype == torch.float32
            assert np.array_equal(part.images[:, 0].numpy() * 16, bunch.images[part.index])
            assert np.array_equal(part.labels.numpy(), bunch.target[part.index])


def test_the_split_is_stratified():
    for part in load("digits", seed=0):
        share = part.labels.bincount(minlength=10) / len(part)
        whole = torch.from_numpy(load_digits().target).bincount() / 1797
        assert (share - whole).abs().max() < 1.0 / len(part)


def test_the_seed_alone_decides_the_split():
    torch.manual_seed(1)
    np.random.seed(1)
    first, again, other = load("digits", seed=0), load("digits", seed=0), load("digits", seed=1)
    assert all(torch.equal(a.index, b.index) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.test.index, other.test.index)


def test_mean_and_std_are_those_of_the_training_pixels():
    splits = load("digits", seed=0)
    pixels = splits.train.images.numpy().astype(np.float64)
    for part in splits:
        assert part.mean == pytest.approx((pixels.mean(),))
        assert part.std == pytest.approx((pixels.std(),))


def test_an_unknown_data_set_lists_what_exists():
    assert "digits" in names()
    for name in ("digitz", "loader", "source"):
        with pytest.raises(ValueError, match=f"there is no data set '{name}'; there are .*digits"):
            load(name, seed=0)


def test_a_seed_out_of_range():
    with pytest.raises(ValueError, match="seed of the digits split"):
        load("digits", seed=-1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 9, "class_names": ("",) * 9}, r"labels hold class 9, outside \[0, 9\)"),
        ({"labels": torch.full((180,), -1)}, r"labels hold class -1, outside \[0, 10\)"),
        ({"labels": torch.zeros(180)}, r"labels must be \[180\] int64"),
        ({"labels": torch.zeros(179, dtype=torch.long)}, r"labels must be \[180\] int64"),
        ({"index": torch.zeros(180, dtype=torch.long)}, "index holds an id twice"),
        ({"images": torch.randn(180, 1, 8, 8)}, r"outside \[0, 1\]: scale them"),
        ({"images": torch.full((180, 1, 8, 8), torch.nan)}, r"outside \[0, 1\]: scale them"),
        ({"images": torch.rand(180, 8, 8)}, r"images must be \[M, C, H, W\]"),
        ({"mean": (0.0, 0.0)}, "mean needs 1 entries, got 2"),
    ],
)
def test_a_source_is_checked_once(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(load("digits", seed=0).val, **change)
