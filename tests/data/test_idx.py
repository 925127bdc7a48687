"""MNIST and its companions, in the layouts in which they lie on disks."""

import gzip
import shutil

import numpy as np
import pytest

from bat_fast.data import create_loader, load, shape

SETS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
CONTENT = {
    part: (
        np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8),
        np.arange(count) % 10,
    )
    for part, count in (("train", 50), ("t10k", 20))
}


def write(folder, packed):
    folder.mkdir(parents=True)
    for part, (x, y) in CONTENT.items():
        for name, array in (("images-idx3", x), ("labels-idx1", y.astype(np.uint8))):
            head = bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4) for n in array.shape)
            content, path = head + array.tobytes(), folder / f"{part}-{name}-ubyte"
            if packed:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)
    return folder


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("place", ["torchvision", "raw", ""])
def test_layouts(name, packed, place, tmp_path):
    root = tmp_path / "data"
    write(root / {"torchvision": f"{SETS[name]}/raw"}.get(place, place), packed)
    splits = load(name, seed=0, root=root, options={"val": 10})
    assert [len(part) for part in splits] == [40, 10, 20]
    x, y = (np.concatenate([CONTENT[part][k] for part in ("train", "t10k")]) for k in (0, 1))
    for part in splits:
        assert (part.num_classes, part.channels, part.image_size) == shape(name)
        (batch,) = create_loader(part, 100, shuffle=False, seed=0)
        assert np.array_equal(batch.x[:, 0].numpy() * 255, x[batch.index].astype(np.float32))
        assert batch.y.tolist() == y[batch.index].tolist()
    assert splits.train.class_names[8] == {"mnist": "8", "fashion_mnist": "Bag"}[name]
    assert splits.train.mean == pytest.approx((CONTENT["train"][0].mean() / 255,))


def test_damage_is_one_clear_line(tmp_path):
    raw = write(tmp_path / "raw", False)
    file = raw / "t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte is no complete IDX file of bytes"):
        load("mnist", seed=0, root=tmp_path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"t10k-images-idx3-ubyte\.gz is missing: unpack"):
        load("mnist", seed=0, root=tmp_path)
    file.with_name(f"{file.name}.gz").write_bytes(b"\x1f\x8b no gzip")
    with pytest.raises(ValueError, match=r"ubyte\.gz cannot be unpacked"):
        load("mnist", seed=0, root=tmp_path)
    shutil.copy(raw / "train-images-idx3-ubyte", file)
    with pytest.raises(ValueError, match="50 images and 20 labels of t10k"):
        load("mnist", seed=0, root=tmp_path)


def test_what_is_not_there_is_downloaded(tmp_path, monkeypatch):
    from torchvision import datasets

    def fail(*_, **__):
        raise RuntimeError("no route to host")

    monkeypatch.setattr(datasets.MNIST, "__init__", fail)
    with pytest.raises(OSError, match=r"MNIST is not in .* and cannot be downloaded \(no route to host\)"):
        load("mnist", seed=0, root=tmp_path)
