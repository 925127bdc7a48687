"""Tiny ImageNet as it lies on disks: original, re-sorted, damaged."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from bat_fast.data import load
from bat_fast.data.generate import write_tiny_imagenet


def wnid_of(splits, part, place) -> str:
    return getattr(splits, part).class_names[int(getattr(splits, part).labels[place])]


def annotations(root: Path) -> dict[str, str]:
    rows = (root / "val" / "val_annotations.txt").read_text().splitlines()
    return {row.split("\t")[0]: row.split("\t")[1] for row in rows}


def resort(root: Path, inner: str) -> None:
    """Sort val by class, as the scripts that circulate do."""
    for file, wnid in annotations(root).items():
        folder = root / "val" / wnid / inner
        folder.mkdir(parents=True, exist_ok=True)
        (root / "val" / "images" / file).rename(folder / file)
    (root / "val" / "images").rmdir()


def test_original_layout(tiny_root, tiny):
    assert [len(part) for part in tiny] == [105, 5, 20]
    wnids = (tiny_root / "wnids.txt").read_text().split()
    assert wnids != sorted(wnids), "the file has an order of its own, which is not that of the ids"
    assert tiny.train.class_names == tuple(sorted(wnids))
    truth = annotations(tiny_root)
    for part in ("train", "val", "test"):
        source = getattr(tiny, part)
        for place in range(len(source)):
            path = Path(source.images.path(int(source.rows[place])))
            named = truth[path.name] if part == "test" else path.name.partition("_")[0]
            assert wnid_of(tiny, part, place) == named
            assert path.exists()
    index = torch.cat([part.index for part in tiny])
    assert torch.equal(index.sort().values, torch.arange(130))
    assert torch.equal(tiny.val.labels.bincount(), torch.ones(5, dtype=torch.long)), "stratified"


def test_grey_files_become_rgb(tiny_copy, tmp_path):
    path = next((tiny_copy / "train").rglob("*_0.JPEG"))
    with Image.open(path) as image:
        image.convert("L").save(path)
    train = load("tiny_imagenet", seed=0, root=tiny_copy).train
    row = list(train.images.names).index(str(path.relative_to(tiny_copy)))
    pixels = train.images.decode(row)
    assert pixels.shape == (64, 64, 3)
    assert torch.equal(pixels[..., 0], pixels[..., 2])
    root = write_tiny_imagenet(tmp_path / "grey", classes=2, train=50, val=2, size=8)
    with Image.open(next((root / "train").rglob("*_49.JPEG"))) as image:
        assert image.mode == "L", "the generator writes some, as the original has them"


@pytest.mark.parametrize("inner", ["", "images"])
@pytest.mark.parametrize("leave", [True, False])
def test_resorted_layout_is_the_same_data(inner, leave, tiny, tiny_copy):
    resort(tiny_copy, inner)
    if not leave:
        (tiny_copy / "val" / "val_annotations.txt").unlink()
    splits = load("tiny_imagenet", seed=0, root=tiny_copy)
    for one, two in zip(tiny[:2], splits[:2], strict=True):
        assert torch.equal(one.index, two.index)
        assert torch.equal(one.labels, two.labels)
    truth = {}
    for splits_ in (tiny, splits):
        test = splits_.test
        names = [Path(test.images.names[int(row)]).name for row in test.rows]
        truth[id(splits_)] = dict(zip(names, test.labels.tolist(), strict=True))
    assert truth[id(tiny)] == truth[id(splits)]


def test_files_are_left_where_they_are(tiny_root, tiny):
    from bat_fast.data import create_loader

    before = {path: path.stat().st_mtime_ns for path in tiny_root.rglob("*")}
    list(create_loader(tiny.train, 16, kind="torch", shuffle=True, seed=0, workers=0))
    assert {path: path.stat().st_mtime_ns for path in tiny_root.rglob("*")} == before


def test_the_seed_decides_what_validates(tiny_root):
    one, two, three = (load("tiny_imagenet", seed=s, root=tiny_root, options={"val": 5}) for s in (0, 0, 1))
    assert torch.equal(one.val.index, two.val.index)
    assert not torch.equal(one.val.index, three.val.index)
    assert torch.equal(one.test.index, three.test.index)


def drop_class(root):
    shutil.rmtree(root / "train" / sorted(p.name for p in (root / "train").iterdir())[1])


def empty_class(root):
    folder = sorted((root / "train").iterdir())[2] / "images"
    for file in folder.iterdir():
        file.unlink()


def double_line(root):
    table = root / "val" / "val_annotations.txt"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join([*lines, lines[3]]))


def unknown_wnid(root):
    table = root / "val" / "val_annotations.txt"
    table.write_text(table.read_text().replace("n0", "x0", 1))


def copy_between_classes(root):
    resort(root, "")
    one, two = sorted(path for path in (root / "val").iterdir() if path.is_dir())[:2]
    file = next(one.iterdir())
    shutil.copy(file, two / file.name)


def copy_in_train(root):
    one, two = sorted((root / "train").iterdir())[:2]
    file = next((one / "images").iterdir())
    shutil.copy(file, two / "images" / file.name)


def twice_in_wnids(root):
    words = root / "wnids.txt"
    words.write_text(words.read_text() + words.read_text().split()[0] + "\n")


DAMAGE = {
    "no train": (lambda root: shutil.rmtree(root / "train"), FileNotFoundError, r"train is not a folder"),
    "no val": (lambda root: shutil.rmtree(root / "val"), FileNotFoundError, r"val is not a folder"),
    "class missing": (drop_class, ValueError, r"wnids\.txt and .*train differ in class n\d+"),
    "class empty": (empty_class, ValueError, r"class n\d+ has no images"),
    "flat val": (
        lambda root: (root / "val" / "val_annotations.txt").unlink(),
        FileNotFoundError,
        r"val_annotations\.txt is missing: without it val/images has no labels",
    ),
    "annotated twice": (
        double_line,
        ValueError,
        r"val_annotations\.txt, line 21: val_3\.JPEG is there twice",
    ),
    "unknown class": (unknown_wnid, ValueError, r"line 1: 'x\w+' is no class of train/"),
    "image missing": (
        lambda root: (root / "val" / "images" / "val_2.JPEG").unlink(),
        ValueError,
        r"val_2\.JPEG is missing",
    ),
    "image too many": (
        lambda root: shutil.copy(root / "val/images/val_2.JPEG", root / "val/images/val_x.JPEG"),
        ValueError,
        r"val_x\.JPEG has no line",
    ),
    "one name in two classes": (copy_between_classes, ValueError, r"the same name as"),
    "one training file in two classes": (copy_in_train, ValueError, r"the same name as"),
    "wnid twice": (twice_in_wnids, ValueError, r"is there twice"),
}


@pytest.mark.parametrize(("damage", "error", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_one_clear_line(damage, error, message, tiny_copy):
    damage(tiny_copy)
    with pytest.raises(error, match=message) as caught:
        load("tiny_imagenet", seed=0, root=tiny_copy)
    assert "\n" not in str(caught.value)
    assert str(tiny_copy) in str(caught.value)


def test_options_are_checked(tiny_root):
    with pytest.raises(ValueError, match=r"data\.root is missing"):
        load("tiny_imagenet", seed=0)
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        load("tiny_imagenet", seed=0, root="nowhere")
    with pytest.raises(ValueError, match=r"data\.options\.vla: .* it has: root, val"):
        load("tiny_imagenet", seed=0, root=tiny_root, options={"vla": 3})
    with pytest.raises(ValueError, match=r"data\.root: data set digits has no such option; it has: none"):
        load("digits", seed=0, root=tiny_root)


def test_the_generator_does_not_overwrite(tiny_root):
    with pytest.raises(FileExistsError, match="is not empty"):
        write_tiny_imagenet(tiny_root)
