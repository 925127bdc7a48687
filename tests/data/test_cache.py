"""The cache of decoded images: the same data, written once, never half."""

import json

import numpy as np
import pytest
import torch

from bat_fast.data import Files, create_loader, load
from bat_fast.data.cache import FOLDER, build_cache
from bat_fast.data.sets import tiny_imagenet

OPTIONS = {"shuffle": True, "seed": 0}


def build(root, **options):
    return build_cache(tiny_imagenet.contents(root), root / FOLDER, workers=1, **options)


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr("bat_fast.data.cache._CHUNK", 16)


def test_a_cache_gives_the_same_batches(tiny, tiny_copy):
    meta = build(tiny_copy)
    assert meta["images"] == [130, 64, 64, 3]
    assert meta["classes"] == list(tiny.train.class_names)
    splits = load("tiny_imagenet", seed=0, root=tiny_copy)
    alone = load("tiny_imagenet", seed=0, root=tiny_copy / FOLDER)  # also where the files are gone
    assert isinstance(splits.train.images, torch.Tensor)
    for one, two, three in zip(tiny, splits, alone, strict=True):
        assert one.mean == two.mean
        batches = [create_loader(s, 16, kind="resident", **OPTIONS) for s in (one, two, three)]
        for a, b, c in zip(*batches, strict=True):
            assert all(torch.equal(p, q) and torch.equal(p, r) for p, q, r in zip(a, b, c, strict=True))


def test_training_does_not_change_the_cache(tiny_copy):
    build(tiny_copy)
    load("tiny_imagenet", seed=0, root=tiny_copy).train.images.zero_()
    assert build(tiny_copy)["sha256"]  # checks every byte again


@pytest.mark.usefixtures("small_chunks")
def test_a_stopped_build_goes_on(tiny_copy):
    calls = []

    def stop(done, total):
        calls.append((done, total))
        if done == 48:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tiny_copy, progress=stop)
    assert not (tiny_copy / FOLDER).exists(), "nothing that looks complete"
    assert isinstance(load("tiny_imagenet", seed=0, root=tiny_copy).train.images, Files)
    first = calls.copy()
    calls.clear()
    meta = build(tiny_copy, progress=lambda done, total: calls.append((done, total)))
    assert first[-1] == (48, 130)
    assert calls[0] == (64, 130), "the first 48 files were not decoded again"
    other = build_cache(tiny_imagenet.contents(tiny_copy), tiny_copy / "other", workers=1)
    assert other["sha256"] == meta["sha256"]
    assert not (tiny_copy / f"{FOLDER}.partial").exists()


@pytest.mark.usefixtures("small_chunks")
def test_a_stopped_build_of_other_files_starts_over(tiny_copy):
    with pytest.raises(KeyboardInterrupt):
        build(tiny_copy, progress=interrupt)
    next((tiny_copy / "train").rglob("*_3.JPEG")).unlink()
    calls = []
    meta = build(tiny_copy, progress=lambda *done: calls.append(done))
    assert meta["images"][0] == 129
    assert calls[0] == (16, 129)


def test_a_complete_cache_is_checked_and_not_built_again(tiny_copy):
    build(tiny_copy)
    build(tiny_copy, progress=lambda *_: pytest.fail("decoded again"))
    with (tiny_copy / FOLDER / "images.npy").open("r+b") as file:
        file.seek(5000)
        byte = file.read(1)
        file.seek(5000)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(
        ValueError, match=r"images\.npy has changed; delete that folder and run bat-fast prepare"
    ):
        build(tiny_copy)


def test_a_cache_of_other_files_is_refused(tiny_copy):
    build(tiny_copy)
    next((tiny_copy / "train").rglob("*_3.JPEG")).unlink()
    with pytest.raises(ValueError, match="the files beside it are not those it was built of"):
        load("tiny_imagenet", seed=0, root=tiny_copy)


@pytest.mark.parametrize("what", ["labels", "cut", "format"])
def test_damage(what, tiny_copy):
    build(tiny_copy)
    folder = tiny_copy / FOLDER
    if what == "labels":
        np.save(folder / "labels.npy", np.zeros(130, dtype=np.int64))
    elif what == "cut":
        with (folder / "images.npy").open("r+b") as file:
            file.truncate(10000)
    else:
        meta = json.loads((folder / "meta.json").read_text())
        (folder / "meta.json").write_text(json.dumps(meta | {"format": 0}))
    with pytest.raises(ValueError, match="delete that folder and run bat-fast prepare again") as caught:
        load("tiny_imagenet", seed=0, root=tiny_copy)
    assert "\n" not in str(caught.value)


def test_corrupt_files_are_named_or_left_out(tiny_copy):
    broken = sorted((tiny_copy / "train").rglob("*_7.JPEG"))[1]
    broken.write_bytes(broken.read_bytes()[:400])
    with pytest.raises(ValueError, match=r"_7\.JPEG: .* --on_corrupt skip"):
        build(tiny_copy)
    meta = build(tiny_copy, on_corrupt="skip")
    assert len(meta["left_out"]) == 1
    assert str(broken) in meta["left_out"][0]
    assert "on_corrupt" not in meta["left_out"][0]
    splits = load("tiny_imagenet", seed=0, root=tiny_copy)
    index = torch.cat([part.index for part in splits])
    row = list(tiny_imagenet.contents(tiny_copy).files.names).index(str(broken.relative_to(tiny_copy)))
    assert sorted(index.tolist()) == [i for i in range(130) if i != row], "the others keep their ids"
