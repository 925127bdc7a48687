"""CIFAR, SVHN, folders of images and made-up images, in the layouts they come in."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from bat_fast.data import Augment, Shape, create_loader, load, names, shape
from bat_fast.data.files import crop_of
from bat_fast.data.loaders.dali import missing
from bat_fast.data.order import stratified

DALI = pytest.param("dali", marks=pytest.mark.skipif(missing() is not None, reason=str(missing())))
CHANCE = np.random.default_rng(0)


def md5(path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def images(count):
    return CHANCE.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def write_cifar(root, monkeypatch, fine: bool):
    """Pickled and binary files with the same content, and torchvision's checksums changed to theirs."""
    from torchvision import datasets

    kind = datasets.CIFAR100 if fine else datasets.CIFAR10
    python, binary = (
        root / f"cifar-{n}"
        for n in (("100-python", "100-binary") if fine else ("10-batches-py", "10-batches-bin"))
    )
    classes = 100 if fine else 10
    labels_of = [f"name {number}".replace(" ", "_") for number in range(classes)]
    content = {}
    for folder in (python, binary):
        folder.mkdir(parents=True)
    for file in [name for name, _ in [*kind.train_list, *kind.test_list]]:
        count = 200 if file == "train" else 100 if fine else 20
        x, y = images(count), [number % classes for number in range(count)]
        entry = {"data": x.reshape(count, -1), ("fine_labels" if fine else "labels"): y, "batch_label": file}
        (python / file).write_bytes(pickle.dumps(entry, protocol=2))
        heads = [np.array(y, np.uint8)[:, None]]
        heads = [np.zeros((count, 1), np.uint8), *heads] if fine else heads
        np.concatenate([*heads, x.reshape(count, -1)], axis=1).tofile(binary / f"{file}.bin")
        content[file] = (x, y)
    key = "fine_label_names" if fine else "label_names"
    (python / kind.meta["filename"]).write_bytes(pickle.dumps({key: labels_of}, protocol=2))
    text = "fine_label_names.txt" if fine else "batches.meta.txt"
    (binary / text).write_text("\n".join(labels_of) + "\n\n")
    for attribute in ("train_list", "test_list"):
        listed = [[name, md5(python / name)] for name, _ in getattr(kind, attribute)]
        monkeypatch.setattr(kind, attribute, listed)
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5(python / kind.meta["filename"])})
    return python, binary, content


@pytest.mark.parametrize("fine", [False, True], ids=["cifar10", "cifar100"])
def test_cifar(fine, tmp_path, monkeypatch):
    python, binary, content = write_cifar(tmp_path, monkeypatch, fine)
    name = "cifar100" if fine else "cifar10"
    x = np.concatenate([x for x, _ in content.values()])
    y = [label for _, labels in content.values() for label in labels]
    for root in (tmp_path, python, binary):
        splits = load(name, seed=0, root=root, options={"val": 10})
        assert [len(part) for part in splits] == [190 if fine else 90, 10, 100 if fine else 20]
        assert splits.train.class_names[3] == "name_3"
        assert shape(name) == Shape(splits.train.num_classes, splits.train.channels, splits.train.image_size)
        for part in splits:
            for batch in create_loader(part, 64, shuffle=False, seed=0):
                assert np.array_equal(batch.x.numpy(), x[batch.index].astype(np.float32) / 255)
                assert batch.y.tolist() == [y[i] for i in batch.index.tolist()]
        assert splits.train.mean == pytest.approx(x[: 200 if fine else 100].mean((0, 2, 3)) / 255)


def test_damaged_cifar(tmp_path, monkeypatch):
    python, binary, _ = write_cifar(tmp_path, monkeypatch, False)
    good = (python / "data_batch_2").read_bytes()
    (python / "data_batch_2").write_bytes(good[:-1] + b"x")
    with pytest.raises(
        ValueError, match=r"data_batch_2 is not the published file \(md5\): delete it.*--data npz"
    ):
        load("cifar10", seed=0, root=tmp_path)
    (python / "data_batch_2").unlink()
    with pytest.raises(FileNotFoundError, match="data_batch_2 is missing: unpack the archive again"):
        load("cifar10", seed=0, root=tmp_path)
    (binary / "data_batch_2.bin").write_bytes((binary / "data_batch_2.bin").read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"data_batch_2\.bin has .* it is not complete"):
        load("cifar10", seed=0, root=binary)
    (python / "data_batch_2").write_bytes(good)
    with pytest.raises(
        ValueError, match=r"data\.options\.val must be in \[0, 100\), got 100: .* --data\.options\.val 10 say"
    ):
        load("cifar10", seed=0, root=python, options={"val": 100})


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_no_code_is_run_from_a_pickle(tmp_path, monkeypatch):
    from torchvision import datasets

    python, _, _ = write_cifar(tmp_path, monkeypatch, False)
    (python / "test_batch").write_bytes(pickle.dumps({"data": Evil()}))
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", md5(python / "test_batch")]])
    with pytest.raises(ValueError, match=r"asks for builtins\.print"):
        load("cifar10", seed=0, root=tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
def test_what_is_not_there_is_downloaded(name, tmp_path, monkeypatch):
    from torchvision import datasets

    asked = []

    def fail(_, root, download, **__):
        asked.append((root, download))
        raise OSError("no route to host")

    for kind in (datasets.CIFAR10, datasets.SVHN):
        monkeypatch.setattr(kind, "__init__", fail)
    with pytest.raises(OSError, match=r"cannot be downloaded \(no route to host\); give the folder"):
        load(name, seed=0, root=tmp_path)
    assert asked == [(str(tmp_path), True)]


def test_svhn(tmp_path, monkeypatch):
    from torchvision.datasets import SVHN

    made, listed = {}, dict(SVHN.split_list)
    for part, count in (("train", 60), ("test", 30)):
        x, y = images(count), np.arange(count) % 10 + 1  # the files call digit 0 "10"
        file = tmp_path / f"{part}_32x32.mat"
        savemat(file, {"X": x.transpose(2, 3, 1, 0), "y": y[:, None].astype(np.uint8)})
        listed[part] = [listed[part][0], listed[part][1], md5(file)]
        made[part] = (x, y)
    monkeypatch.setattr(SVHN, "split_list", listed)
    splits = load("svhn", seed=0, root=tmp_path, options={"val": 10})
    assert [len(part) for part in splits] == [50, 10, 30]
    assert shape("svhn") == Shape(splits.train.num_classes, splits.train.channels, splits.train.image_size)
    x, y = (np.concatenate([made[part][which] for part in ("train", "test")]) for which in (0, 1))
    for part in splits:
        (batch,) = create_loader(part, 100, shuffle=False, seed=0)
        assert np.array_equal(batch.x.numpy(), x[batch.index].astype(np.float32) / 255)
        assert np.array_equal(batch.y.numpy(), y[batch.index] % 10)
    (tmp_path / "test_32x32.mat").write_bytes(b"MATLAB")
    with pytest.raises(ValueError, match=r"test_32x32\.mat is not the published file"):
        load("svhn", seed=0, root=tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """train/CLASS and val/CLASS with photographs of many sizes and kinds."""
    root = tmp_path_factory.mktemp("folder")
    for part, count in (("train", 12), ("val", 4)):
        for number, name in enumerate(("cat", "ant")):
            (root / part / name).mkdir(parents=True)
            for k in range(count):
                low = CHANCE.integers(0, 256, (4 + k, 6, 3), dtype=np.uint8)
                image = Image.fromarray(low).resize((60 + 7 * k, 90 - 3 * k), Image.Resampling.BICUBIC)
                kind = "L" if k == 1 else "RGB"
                image.convert(kind).save(root / part / name / f"{k}.{'png' if number else 'jpg'}")
    return root


@pytest.mark.parametrize("kind", ["torch", "resident", DALI])
def test_image_folder(kind, folder):
    splits = load("image_folder", seed=0, root=folder, options={"size": 32, "val": 0.25})
    assert [len(part) for part in splits] == [18, 6, 8]
    assert splits.train.class_names == ("ant", "cat")
    assert splits.val.labels.bincount().tolist() == [3, 3]
    (wanted,) = create_loader(splits.test, 8, kind="torch", shuffle=False, seed=0, workers=0)
    (batch,) = create_loader(splits.test, 8, kind=kind, shuffle=False, seed=0, workers=1)
    assert batch.x.shape == (8, 3, 32, 32)
    assert batch.y.tolist() == [0] * 4 + [1] * 4
    # DALI resizes with filters of its own: close, and not the same bits.
    assert (batch.x - wanted.x).abs().mean() < (0.01 if kind == "dali" else 1e-9)


@pytest.mark.parametrize("kind", ["torch", DALI])
def test_resized_crops_are_those_of_the_sample(kind, folder):
    train = load("image_folder", seed=0, root=folder, options={"size": 32, "val": 0}).train
    options = {"shuffle": True, "seed": 0, "augment": Augment(resized_crop=True, flip=True), "workers": 1}
    found = {}
    for way, size in (("torch", 24), (kind, 5)):
        loader = create_loader(train, size, kind=way, **options)
        for epoch in (0, 1):
            loader.set_epoch(epoch)
            for batch in loader:
                for x, sample in zip(batch.x, batch.index.tolist(), strict=True):
                    before = found.setdefault((epoch, sample), x)
                    error = (x - before).abs().mean()
                    assert error < (0.02 if way == "dali" else 1e-9), (way, sample)
    moved = [(found[0, s] - found[1, s]).abs().mean() for s in range(24)]
    assert sum(float(m) > 0.03 for m in moved) > 18, "every epoch has other crops"
    with pytest.raises(ValueError, match="needs --data.loader dali or torch".replace(".", r"\.")):
        create_loader(train, 8, kind="resident", **options)


def test_crops_stay_inside():
    for height, width in ((1, 1), (3, 200), (64, 64), (500, 375)):
        assert crop_of(height, width, None).height <= min(height, width)
        for window in [*torch.rand(200, 4).tolist(), [0.0] * 4, [0.999999] * 4]:
            top, left, h, w = crop_of(height, width, window)
            assert 0 <= top <= top + h <= height
            assert 0 <= left <= left + w <= width
            assert min(h, w) >= 1


def test_imagenet_is_such_a_folder(folder):
    splits = load("imagenet", seed=0, root=folder)
    assert splits.train.image_size == 224 == shape("imagenet").image_size
    assert splits.train.name == "imagenet"
    assert splits.train.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": 0}, r"data\.options\.size"), ({"val": 1}, r"data\.options\.val must be in \[0, 1\)")],
)
def test_wrong_options_of_a_folder(folder, options, message):
    with pytest.raises(ValueError, match=message):
        load("image_folder", seed=0, root=folder, options=options)


def test_another_class_in_val(folder):
    (folder / "val" / "dog").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match="class dog is not one of the 2 training classes"):
        load("image_folder", seed=0, root=folder)
    (folder / "val" / "dog").rmdir()


def test_synthetic_images_have_classes():
    splits = load("synthetic", seed=0, options={"size": 32, "classes": 4, "count": 800})
    assert [len(part) for part in splits] == [640, 80, 80]
    assert splits.train.images.dtype == torch.uint8
    index = torch.cat([part.index for part in splits])
    assert torch.equal(index.sort().values, torch.arange(800))
    x = splits.train.images.float().flatten(1)
    means = torch.stack([x[splits.train.rows[splits.train.labels == label]].mean(0) for label in range(4)])
    guess = torch.cdist(x[splits.test.rows], means).argmin(1)
    accuracy = (guess == splits.test.labels).float().mean()
    assert accuracy > 0.5, "a simple rule learns something"
    again = load("synthetic", seed=0, options={"size": 32, "classes": 4, "count": 800})
    assert torch.equal(again.train.images, splits.train.images)
    # Neighbouring pixels of photographs are alike.
    pixels = splits.train.images[:50].float()
    assert (pixels[..., 1:] - pixels[..., :-1]).abs().mean() < 0.3 * pixels.std()
    with pytest.raises(ValueError, match=r"data\.options\.count must be at least 1000"):
        load("synthetic", seed=0, options={"classes": 100, "count": 900})


def test_held_out_samples_are_an_equal_share_of_each_class():
    labels = torch.tensor([0] * 100 + [1] * 50 + [2] * 10)[torch.randperm(160)]
    rest, held = stratified(labels, 32, seed=1)
    assert labels[held].bincount().tolist() == [20, 10, 2]
    assert torch.equal(torch.cat([rest, held]).sort().values, torch.arange(160))
    assert len(stratified(labels, 0, seed=1)[1]) == 0


def test_all_sets_are_there():
    assert names() == [
        "cifar10", "cifar100", "digits", "fashion_mnist", "hf", "image_folder", "imagenet", "imagenette",
        "mnist", "npz", "svhn", "synthetic", "tiny_imagenet",
    ]  # fmt: skip
