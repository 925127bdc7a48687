"""Images beyond the data set, at a fixed ratio in every batch."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bat_fast.data import Augment, ExtraData, create_loader, load

SPLITS = load("synthetic", seed=0, options={"size": 8, "classes": 4, "count": 80})
CHANCE = np.random.default_rng(0)
IMAGES = CHANCE.integers(0, 256, (23, 8, 8, 3), dtype=np.uint8)
LABELS = CHANCE.integers(0, 4, 23)


@pytest.fixture
def path(tmp_path):
    np.savez(tmp_path / "extra.npz", image=IMAGES, label=LABELS)
    return tmp_path / "extra.npz"


def extra(path, count=5, **options):
    given = {"first_id": 1000, "count": count, "seed": 0, "device": "cpu", "augment": Augment()}
    return ExtraData(path, SPLITS.train, **given | options)


def batches(path, epochs=1, rank=0, world=1, **options):
    options = {"augment": Augment(pad=1, flip=True)} | options
    loader = create_loader(
        SPLITS.train, 6, shuffle=True, seed=0, rank=rank, world_size=world, extra=extra(path, **options)
    )
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        yield from loader


def test_every_batch_has_its_share(path):
    given = list(batches(path))
    assert [len(batch.y) for batch in given] == [6 + 5] * 10 + [4 + 5]
    for batch in given:
        assert batch.x.shape[1:] == (3, 8, 8)
        ids = batch.index[-5:] - 1000
        assert (batch.index[:-5] < 80).all()
        assert torch.equal(batch.y[-5:], torch.from_numpy(LABELS)[ids])
    plain = list(batches(path, augment=Augment()))
    pixels = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() / 255
    assert all(torch.equal(batch.x[-5:], pixels[batch.index[-5:] - 1000]) for batch in plain)


def test_each_image_comes_once_before_any_comes_again(path):
    seen = [int(i) for batch in batches(path, epochs=4) for i in batch.index if i >= 1000]
    assert len(seen) == 4 * 11 * 5
    for number in range(len(seen) // 23):
        part = seen[23 * number : 23 * (number + 1)]
        assert sorted(part) == list(range(1000, 1023))
    assert seen[:23] != seen[23:46]


def test_ranks_share_them(path):
    each = [[int(i) for b in batches(path, 2, rank, 2) for i in b.index if i >= 1000] for rank in range(2)]
    assert [len(ids) for ids in each] == [2 * 11 * 3, 2 * 11 * 2]  # 5 a step
    one = [int(i) for batch in batches(path, 2) for i in batch.index if i >= 1000]
    steps = zip(*(np.array(ids).reshape(22, -1) for ids in each), strict=True)
    assert np.concatenate([np.concatenate(step) for step in steps]).tolist() == one


def test_resuming_gives_the_same_images(path):
    options = {"shuffle": True, "seed": 0}
    loaders = [create_loader(SPLITS.train, 6, extra=extra(path), **options) for _ in range(2)]
    loaders[0].set_epoch(3)
    stream = iter(loaders[0])
    for _ in range(4):
        next(stream)
    loaders[1].load_state_dict(loaders[0].state_dict())
    for one, two in zip(stream, loaders[1], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.slow
def test_soft_labels_are_drawn_in_their_proportions(tmp_path):
    soft = CHANCE.dirichlet(np.ones(4), 23).astype(np.float32)
    save_file(
        {"image": torch.from_numpy(IMAGES), "label": torch.from_numpy(soft)}, tmp_path / "s.safetensors"
    )
    drawn = np.zeros((23, 4))
    for batch in batches(tmp_path / "s.safetensors", epochs=150):
        for sample, label in zip(batch.index.tolist(), batch.y.tolist(), strict=True):
            if sample >= 1000:
                drawn[sample - 1000, label] += 1
    counts = drawn.sum(1, keepdims=True)
    assert (np.abs(drawn / counts - soft) < 5 * np.sqrt(0.25 / counts)).all()
    one, two = (list(batches(tmp_path / "s.safetensors")) for _ in range(2))
    assert all(torch.equal(a.y, b.y) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"image": IMAGES}, "needs the arrays image and label"),
        ({"image": IMAGES / 255, "label": LABELS}, r"image must be \[M, 8, 8, 3\] uint8"),
        ({"image": IMAGES[:, :4], "label": LABELS}, r"image must be \[M, 8, 8, 3\] uint8"),
        ({"image": IMAGES, "label": LABELS[:9]}, "23 images and 9 labels"),
        ({"image": IMAGES, "label": LABELS + 1}, r"labels from 1 to 4, outside \[0, 4\): number them from 0"),
        ({"image": IMAGES, "label": np.ones((23, 4))}, "probabilities that add up to 1"),
        ({"image": IMAGES, "label": np.ones((23, 3)) / 3}, r"must be \[M, 4\] probabilities"),
    ],
)
def test_files_that_do_not_fit(content, message, tmp_path):
    np.savez(tmp_path / "x.npz", **content)
    with pytest.raises(ValueError, match=message) as caught:
        extra(tmp_path / "x.npz")
    assert str(tmp_path / "x.npz") in str(caught.value)


def test_files_that_are_none(path, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.npz".replace(".", r"\.")):
        extra(tmp_path / "nowhere.npz")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match="cannot be read"):
        extra(path)
    (tmp_path / "x.csv").write_text("")
    with pytest.raises(ValueError, match=r"neither \.npz nor \.safetensors"):
        extra(tmp_path / "x.csv")
