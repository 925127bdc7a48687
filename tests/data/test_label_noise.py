"""Wrong labels on purpose."""

import dataclasses

import pytest
import torch

from bat_fast.data import add_label_noise, load, shape

CLEAN = load("digits", seed=0)


@pytest.mark.parametrize("rate", [0.1, "1/4", 1.0])
def test_symmetric(rate):
    noisy = add_label_noise(CLEAN.train, kind="symmetric", rate=rate, seed=1)
    assert torch.equal(noisy.true_labels, CLEAN.train.labels)
    assert torch.equal(noisy.images, CLEAN.train.images)
    share = (noisy.labels != noisy.true_labels).double().mean().item()
    wanted = 0.9 * (0.25 if rate == "1/4" else rate)  # a drawn sample keeps its class one time in ten
    assert share == pytest.approx(wanted, abs=0.03)


def test_nearest_is_the_class_of_the_nearest_mean():
    noisy = add_label_noise(CLEAN.train, kind="nearest", rate=0.05, seed=2)
    wrong = (noisy.labels != noisy.true_labels).nonzero().flatten()
    assert len(wrong) == round(0.05 * len(noisy))
    images, labels = CLEAN.train.images.flatten(1), CLEAN.train.labels
    for row in wrong[:20].tolist():
        distance = [float((images[row] - images[labels == k].mean(0)).norm()) for k in range(10)]
        distance[int(labels[row])] = float("inf")
        assert int(noisy.labels[row]) == distance.index(min(distance))


def test_the_noise_belongs_to_the_sample():
    order = torch.randperm(len(CLEAN.train))
    parts = {name: getattr(CLEAN.train, name)[order] for name in ("images", "labels", "index")}
    shuffled = dataclasses.replace(CLEAN.train, **parts)
    one, two, other = (
        add_label_noise(source, kind="symmetric", rate=0.3, seed=seed)
        for source, seed in ((CLEAN.train, 0), (shuffled, 0), (CLEAN.train, 1))
    )
    changed = {int(i) for i in one.index[one.labels != one.true_labels]} ^ {
        int(i) for i in two.index[two.labels != two.true_labels]
    }
    assert not changed
    assert torch.equal(one.labels[order], two.labels)
    assert not torch.equal(one.labels, other.labels)


def test_only_the_training_split_is_touched():
    noisy = load("digits", seed=0, label_noise={"kind": "symmetric", "rate": 0.5, "seed": 0})
    assert torch.equal(noisy.val.labels, CLEAN.val.labels)
    assert torch.equal(noisy.test.labels, CLEAN.test.labels)
    assert noisy.val.true_labels is None
    none = load("digits", seed=0, label_noise={"kind": "symmetric", "rate": 0, "seed": 0})
    assert none.train.true_labels is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "asymmetric"}, r"data\.label_noise\.kind must be symmetric or nearest"),
        ({"rate": 1.5}, r"data\.label_noise\.rate must be in \[0, 1\], got 1\.5"),
        ({"rate": "nan"}, r"data\.label_noise\.rate must be in"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(ValueError, match=message):
        add_label_noise(CLEAN.train, **({"kind": "symmetric", "rate": 0.1, "seed": 0} | options))


def test_unknown_data_sets():
    assert shape("cifar100").num_classes == 100
    with pytest.raises(
        ValueError, match=r"there is no data set 'cifar'; there are cifar10, cifar100, digits"
    ):
        load("cifar", seed=0)


def test_nearest_works_on_a_part_of_a_store():
    train = CLEAN.train
    where = torch.arange(0, len(train), 3)
    part, own = (
        train.part(where),
        dataclasses.replace(
            train, images=train.images[where], labels=train.labels[where], index=train.index[where]
        ),
    )
    one, two = (add_label_noise(source, kind="nearest", rate=0.1, seed=0) for source in (part, own))
    assert torch.equal(one.labels, two.labels)
    assert (one.labels != one.true_labels).any()
