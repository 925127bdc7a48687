"""The loader that keeps a split on the device."""

import pytest
import torch

from bat_fast.data import ResidentLoader, Source


def source(count: int = 11, dtype: torch.dtype = torch.float32) -> Source:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 4, 4), generator=generator, dtype=torch.uint8)
    if dtype == torch.float32:
        images = images / 255.0
    index = torch.arange(count) * 10 + 5  # ids of a part of a larger set
    labels = torch.arange(count) % 3
    return Source(images, labels, index, 3, "test", ("a", "b", "c"), (0.5,) * 3, (0.5,) * 3)


def loader(epoch: int = 0, **options) -> ResidentLoader:
    made = ResidentLoader(source(), **{"batch_size": 4, "shuffle": True, "seed": 0, **options})
    made.set_epoch(epoch)
    return made


def order(made: ResidentLoader) -> list[int]:
    return [int(i) for batch in made for i in batch.index]


@pytest.mark.parametrize("batch_size", [1, 4, 11, 100])
@pytest.mark.parametrize("shuffle", [True, False])
def test_each_sample_comes_exactly_once(batch_size, shuffle):
    made = loader(batch_size=batch_size, shuffle=shuffle)
    batches = list(made)
    assert len(batches) == len(made) == -(-11 // batch_size)
    assert made.num_samples == 11
    assert sorted(order(made)) == list(range(5, 115, 10))


def test_image_label_and_index_stay_together():
    data = source()
    for batch in loader(epoch=2):
        row = (batch.index - 5) // 10
        assert torch.equal(batch.x, data.images[row])
        assert torch.equal(batch.y, data.labels[row])
        assert batch.x.dtype == torch.float32
        assert batch.y.dtype == batch.index.dtype == torch.int64


def test_the_order_depends_on_seed_and_epoch_alone():
    first = order(loader(epoch=3))
    torch.manual_seed(99)
    made = loader(epoch=0)
    list(made)
    made.set_epoch(3)
    assert order(made) == first == order(made)  # replayed, also twice
    # Seeds that agree in their low 32 bits, and (seed, epoch) pairs with one sum, differ too.
    others = [
        loader(epoch=4),
        loader(3, seed=1),
        loader(3, seed=1 << 32),
        loader(2, seed=1),
        loader(3, seed=-1),
    ]
    orders = [first, *map(order, others)]
    assert len({tuple(o) for o in orders}) == len(orders)


def test_without_shuffling_the_order_is_that_of_the_source():
    assert order(loader(epoch=5, shuffle=False)) == list(range(5, 115, 10))


def test_bytes_become_pixels_between_0_and_1():
    data = source(dtype=torch.uint8)
    (batch,) = ResidentLoader(data, 100, shuffle=False, seed=0)
    assert batch.x.dtype == torch.float32
    assert torch.equal(batch.x, data.images.to(torch.float32) / 255)


def test_writing_into_a_batch_leaves_the_data_as_they_are():
    made = loader(shuffle=False)
    for batch in made:
        batch.x.fill_(0.5)
    assert torch.equal(torch.cat([batch.x for batch in made]), source().images)


def test_errors():
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        loader(batch_size=0)
    with pytest.raises(ValueError, match="the split is empty"):
        ResidentLoader(source(0), 4, shuffle=False, seed=0)
