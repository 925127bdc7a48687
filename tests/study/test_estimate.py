import math
import os
import tracemalloc

import numpy as np
import pytest

from bat_fast.study.estimate import (
    ROWS,
    by_class,
    bytes_needed,
    columns,
    influence,
    memorisation,
    models_needed,
    strong_pairs,
    worst_error,
)


@pytest.fixture
def rng():
    return np.random.default_rng(int(os.environ["BAT_FAST_TEST_SEED"]))


def random_bits(rng, k, n, share):
    bits = rng.random((k, n)) < share
    return bits, np.packbits(bits, axis=1)


def test_bits_of_some_samples(rng):
    bits, packed = random_bits(rng, 5, 37, 0.5)
    places = rng.permutation(37)[:11]
    assert (columns(packed, places) == bits[:, places]).all()


def test_memorisation_is_the_difference_of_two_means(rng):
    k, n = 60, ROWS + 13  # more than a block, and no multiple of 8
    seen, subsets = random_bits(rng, k, n, 0.7)
    right, correct = random_bits(rng, k, n, 0.6)
    found = memorisation(subsets, correct, n)
    for i in rng.permutation(n)[:50]:
        p, q = right[seen[:, i], i].mean(), right[~seen[:, i], i].mean()
        assert found.value[i] == pytest.approx(p - q)
        n_in, n_out = seen[:, i].sum(), (~seen[:, i]).sum()
        assert found.error[i] == pytest.approx(math.sqrt(p * (1 - p) / n_in + q * (1 - q) / n_out))
        assert (found.seen[i], found.unseen[i]) == (pytest.approx(p), pytest.approx(q))


def test_influence_is_the_same_at_the_test_images(rng):
    seen, subsets = random_bits(rng, 40, 30, 0.7)
    right, correct = random_bits(rng, 40, 21, 0.6)
    train, test = np.array([3, 29, 0]), np.array([20, 5])
    found = influence(subsets, correct, train, test)
    assert found.value.dtype == np.float32
    for row, i in enumerate(train):
        for column, j in enumerate(test):
            wanted = right[seen[:, i], j].mean() - right[~seen[:, i], j].mean()
            assert found.value[row, column] == pytest.approx(wanted, abs=1e-6)


def test_a_planted_memory_is_found(rng):
    """A sample that is right exactly when it was seen has the value 1, and decides its twin in the test."""
    seen, subsets = random_bits(rng, 200, 20, 0.7)
    right = np.ones((200, 20), bool)
    right[:, 4] = seen[:, 4]
    twin = np.ones((200, 6), bool)
    twin[:, 2] = seen[:, 4]
    mem = memorisation(subsets, np.packbits(right, axis=1), 20)
    assert mem.value[4] == 1.0
    assert np.delete(mem.value, 4).tolist() == [0.0] * 19
    pairs = strong_pairs(subsets, np.packbits(twin, axis=1), 6, mem.value)
    assert [each.tolist() for each in pairs] == [[4], [2], [1.0]]


def test_nobody_saw_it():
    subsets, correct = np.array([[0b01000000]] * 3, np.uint8), np.array([[0b11000000]] * 3, np.uint8)
    assert np.isnan(memorisation(subsets, correct, 2).value).all()
    assert len(strong_pairs(subsets, correct, 2, np.full(2, np.nan)).train) == 0


def test_classes_keep_to_themselves(rng):
    _, subsets = random_bits(rng, 30, 9, 0.7)
    _, correct = random_bits(rng, 30, 6, 0.5)
    train, test = np.array([0, 1, 2] * 3), np.array([0, 1, 2] * 2)
    for label, rows, places, values in by_class(subsets, correct, train, test):
        assert rows.tolist() == [label, label + 3, label + 6]
        assert (values == influence(subsets, correct, rows, places).value).all()


def test_how_many_models_a_threshold_needs():
    assert [round(worst_error(k, 0.7), 3) for k in (100, 400, 1000, 2000, 4000)] == [
        0.109, 0.055, 0.035, 0.024, 0.017,
    ]  # fmt: skip
    k = models_needed(0.15, 0.7)
    assert k == 386
    assert worst_error(k, 0.7) <= 0.15 / 2.7 < worst_error(k - 1, 0.7)


def test_memory_stays_within_the_count(rng):
    """The count holds for small studies of any shape; for CIFAR-100 with 4000 models it is small."""
    for k, n, m, classes in ((200, 3000, 600, 10), (64, 500, 2000, 4)):
        packed = [random_bits(rng, k, size, 0.7)[1] for size in (n, n, n, m, m)]
        labels = np.arange(n) % classes, np.arange(m) % classes
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        mem = memorisation(packed[0], packed[1], n)
        strong_pairs(packed[0], packed[3], m, mem.value + 1, influential=2.0)
        for _ in by_class(packed[0], packed[4], *labels):
            pass
        used = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
        limit = bytes_needed(k, n, m, (-(-n // classes), -(-m // classes)))
        assert used + sum(each.nbytes for each in packed) <= limit
    cifar100 = bytes_needed(4000, 50_000, 10_000, (500, 100))
    assert cifar100 < 800e6  # one n x n matrix of float64 would be 20 GB
