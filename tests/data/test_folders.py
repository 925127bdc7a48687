"""Folders as people have them."""

import pytest
import torch
from PIL import Image

from bat_fast.cli import main
from bat_fast.data import Augment, create_loader, load
from bat_fast.data.prepare import prepare

SMALL = {"size": 8}


def put(*paths):
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "GIF" if path.name.startswith("._") or path.suffix in (".txt", "") else None
        Image.new("RGB", (16, 16), (number % 256, 0, 0)).save(path, kind)


def fill(root, *parts, count=10):
    for part in parts:
        put(*(root / part / name / f"{k}.png" for name in ("cat", "ant") for k in range(count)))


def sizes(root, **options):
    return [len(part) for part in load("image_folder", seed=0, root=root, options=SMALL | options)]


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        (("",), [16, 2, 2]),
        (("train",), [16, 2, 2]),
        (("train", "val"), [18, 2, 20]),
        (("train", "valid"), [18, 2, 20]),
        (("train", "test"), [18, 2, 20]),
        (("train", "validation", "test"), [20, 20, 20]),
        (("Train", "Test"), [18, 2, 20]),
    ],
)
def test_layouts(parts, wanted, tmp_path):
    fill(tmp_path, *parts)
    splits = load("image_folder", seed=0, root=tmp_path, options=SMALL)
    assert [len(part) for part in splits] == wanted
    assert all(part.class_names == ("ant", "cat") for part in splits)
    index = torch.cat([part.index for part in splits])
    assert torch.equal(index.sort().values, torch.arange(sum(wanted)))
    for part in splits:
        assert part.labels.bincount().tolist() == [len(part) // 2] * 2, "the classes in equal shares"
        for row, label in zip(part.rows.tolist(), part.labels.tolist(), strict=True):
            assert f"/{part.class_names[label]}/" in part.images.path(row)
    if "validation" in parts:
        assert all("/validation/" in splits.val.images.path(row) for row in splits.val.rows.tolist())


def test_shares(tmp_path):
    fill(tmp_path, "train")
    assert sizes(tmp_path, val=0.2, test=0.3) == [10, 4, 6]
    one, two = (load("image_folder", seed=s, root=tmp_path, options=SMALL) for s in (0, 1))
    assert torch.equal(one.test.index, two.test.index), "the same for every seed"
    assert not torch.equal(one.val.index, two.val.index)
    with pytest.raises(ValueError, match=r"20 images are too few for training, val and test; lower data"):
        sizes(tmp_path, val=0.5, test=0.5)
    with pytest.raises(ValueError, match=r"data\.options\.test must be in \[0, 1\)"):
        sizes(tmp_path, test=1)
    fill(tmp_path, "test")
    with pytest.raises(ValueError, match=r"data\.options\.test: image_folder has a test part of its own"):
        sizes(tmp_path, test=0.1)


def test_every_image_is_read_and_the_rest_is_counted(tmp_path, capsys):
    root = tmp_path / "set"
    fill(root, "train", "val")
    for end in ("webp", "bmp", "gif", "tiff", "JPG", "ppm"):
        put(root / "train" / "cat" / f"more.{end}", root / "train" / "ant" / "deep" / "er" / f"more.{end}")
    assert sizes(root, val=0.25) == [24, 8, 20]
    assert capsys.readouterr().err == "", "nothing to say"
    put(
        root / "train" / "cat" / "._0.png",
        root / "train" / "cat" / ".DS_Store",
        root / "train" / ".ipynb_checkpoints" / "0.png",
        root / "train" / "__MACOSX" / "cat" / "._0.png",
        root / "train" / "cat" / "notes.txt",
        root / "train" / "readme.txt",
        root / "test" / "1.png",
        root / "test" / "2.png",
    )
    assert sizes(root, val=0.25) == [24, 8, 20]
    assert capsys.readouterr().err == (
        f"image_folder {root}: 8 files left out: 4 hidden, 2 in test/, without classes of train/, "
        "1 beside the class folders, 1 .txt\n"
    )
    splits = load("image_folder", seed=0, root=root, options=SMALL)
    assert [split.origin for split in splits] == ["", "10% of training", "val/"]
    assert capsys.readouterr().err == "", "it has been said"


def test_links_are_followed_and_do_not_lead_round(tmp_path):
    fill(tmp_path / "real", "train", count=4)
    put(tmp_path / "elsewhere" / "a.png", tmp_path / "elsewhere" / "b.png")
    cat = tmp_path / "real" / "train" / "cat"
    (cat / "more").symlink_to(tmp_path / "elsewhere")
    (cat / "up").symlink_to(cat)
    (cat / "top").symlink_to(tmp_path / "real")
    (tmp_path / "elsewhere" / "back").symlink_to(cat)
    train = load("image_folder", seed=0, root=tmp_path / "real", options=SMALL | {"val": 0, "test": 0}).train
    assert train.labels.bincount().tolist() == [4, 6]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("train", "val", "valid"), r"holds val/ and valid/: keep one of them"),
        (("val",), r"holds val/ but no train/: move the class folders into .*/train"),
        ((), r"holds no class folders; expected .*/CLASS/\*\.jpg"),
    ],
)
def test_layouts_that_say_nothing(parts, message, tmp_path):
    fill(tmp_path, *parts)
    with pytest.raises(ValueError, match=message):
        sizes(tmp_path)


def test_an_empty_class(tmp_path):
    fill(tmp_path, "train")
    put(tmp_path / "train" / "dog" / "notes.txt")
    with pytest.raises(ValueError, match=r"class dog has no images that Pillow reads"):
        sizes(tmp_path)


@pytest.mark.parametrize("parts", [("",), ("train", "val", "test")])
def test_a_cache_of_it_is_the_same_set(parts, tmp_path, capsys):
    fill(tmp_path, *parts)
    assert main(["prepare", "image_folder", str(tmp_path), "--size", "8", "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert ("20 train, 8x8" if parts == ("",) else "20 train + 20 val + 20 test, 8x8") in printed
    files = load("image_folder", seed=3, root=tmp_path, options=SMALL | {"cache": False})
    for root in (tmp_path, tmp_path / "bat_fast_cache"):
        cached = load("image_folder", seed=3, root=root, options=SMALL)
        for one, two in zip(files, cached, strict=True):
            assert isinstance(two.images, torch.Tensor)
            assert torch.equal(one.index, two.index)
            assert torch.equal(one.labels, two.labels)
            assert (one.mean, one.std, one.class_names) == (two.mean, two.std, two.class_names)
            a, b = (
                next(iter(create_loader(s, 30, kind="resident", shuffle=False, seed=0))) for s in (one, two)
            )
            assert torch.equal(a.x, b.x)
    said = r"prepared with size 8 and exact false, and data.options says 16 and false"
    assert load("image_folder", seed=3, root=tmp_path, options={"size": 16}).train.image_size == 16
    assert f"{said}; the files are read instead: for a cache like that" in capsys.readouterr().err
    with pytest.raises(ValueError, match=said):
        load("image_folder", seed=3, root=tmp_path / "bat_fast_cache", options={"size": 16})
    with pytest.raises(ValueError, match=r"resized_crop: .*--data\.options\.cache false"):
        create_loader(cached.train, 4, shuffle=True, seed=0, augment=Augment(resized_crop=True))
    put(tmp_path / parts[0] / "cat" / "new.png")
    with pytest.raises(ValueError, match="the files beside it are not those it was built of"):
        load("image_folder", seed=3, root=tmp_path, options=SMALL)


def test_options_of_prepare(tiny_root, tmp_path):
    with pytest.raises(ValueError, match="size: the images of tiny-imagenet have one size; leave --size out"):
        prepare("tiny-imagenet", tiny_root, out=tmp_path / "cache", size=32)
    fill(tmp_path / "set", "")
    with pytest.raises(ValueError, match=r"it has 16x16 pixels, not 8"):
        prepare("image-folder", tmp_path / "set", size=8, exact=True)


def test_imagenet(tmp_path):
    fill(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match=r"val is not a folder: --data\.root is"):
        load("imagenet", seed=0, root=tmp_path)
    fill(tmp_path, "val", "test")
    files = load("imagenet", seed=0, root=tmp_path, options={"size": 8})
    assert [len(part) for part in files] == [19, 1, 20], "test is the published val/"
    prepare("imagenet", tmp_path, out=tmp_path / "cache", size=8)
    cached = load("imagenet", seed=0, root=tmp_path / "cache", options={"size": 8})
    assert torch.equal(cached.train.index, files.train.index)
    assert cached.train.mean == (0.485, 0.456, 0.406)


def test_imagenette(tmp_path, monkeypatch):
    from torchvision import datasets

    for name, count in (("imagenette2-160", 10), ("imagenette2-320", 20)):
        fill(tmp_path / name, "train", "val", count=count)
    for root, size, wanted in (
        (tmp_path, 128, [18, 2, 20]),
        (tmp_path, 224, [36, 4, 40]),
        (tmp_path / "imagenette2-160", 224, [18, 2, 20]),
    ):
        splits = load("imagenette", seed=0, root=root, options={"size": size})
        assert [len(part) for part in splits] == wanted
        assert splits.train.image_size == size
    prepare("imagenette", tmp_path, size=8, workers=1)
    assert isinstance(
        load("imagenette", seed=0, root=tmp_path, options={"size": 8}).train.images, torch.Tensor
    )
    asked = []

    def fail(_, root, size, **__):
        asked.append((root, size))
        raise OSError("no route to host")

    monkeypatch.setattr(datasets.Imagenette, "__init__", fail)
    for size in (128, 224, 500):
        with pytest.raises(OSError, match="cannot be downloaded"):
            load("imagenette", seed=0, root=tmp_path / "nowhere", options={"size": size})
    assert [size for _, size in asked] == ["160px", "320px", "full"]
