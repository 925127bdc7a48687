"""What a data set says about itself without being read is what its loader gives."""

import inspect

import pytest

from bat_fast import data
from bat_fast.data.sets import find

PUBLISHED = {  # training images of the sets that are too large for a test
    "cifar10": 50_000, "cifar100": 50_000, "svhn": 73_257, "tiny_imagenet": 100_000, "imagenet": 1_281_167,
    "imagenette": 9469, "mnist": 60_000, "fashion_mnist": 60_000,
}  # fmt: skip
OPEN = ["hf", "image_folder", "npz", "synthetic"]  # folders and options decide
EXACT = [name for name in data.names() if name not in (*PUBLISHED, *OPEN)]  # read here as a whole


def shape_of(source: data.Source) -> data.Shape:
    return data.Shape(source.num_classes, source.channels, source.image_size)


def test_the_digits_are_among_them():
    assert "digits" in EXACT
    assert data.train_images("digits") == 1258


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("seed", [0, 5])
def test_facts_are_those_of_the_splits(name, seed):
    splits = data.load(name, seed=seed)
    assert data.train_images(name) == len(splits.train)
    assert all(data.shape(name) == shape_of(part) for part in splits)


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_the_images_that_validate_do_not_train(name, published):
    val = inspect.signature(find(name).load).parameters["val"].default
    assert val > 0
    assert data.train_images(name) == published - (round(val * published) if val < 1 else val)


def test_a_small_tiny_imagenet_differs_in_its_classes_alone(tiny):
    assert shape_of(tiny.train) == data.shape("tiny_imagenet")._replace(num_classes=5)


@pytest.mark.parametrize("name", OPEN)
def test_what_is_not_known(name):
    assert data.shape(name) is None
    assert data.train_images(name) is None


def test_facts_of_no_data_set():
    for fact in (data.shape, data.train_images):
        with pytest.raises(ValueError, match="there is no data set 'cifar'; there are cifar10, cifar100"):
            fact("cifar")


def test_the_size_that_is_asked_for_is_known_without_the_files():
    assert data.shape("imagenet", {"size": 160, "val": 0.1}) == data.Shape(1000, 3, 160)
    assert data.shape("imagenet") == data.Shape(1000, 3, 224)
