"""Splits that a program brings, and the files of arrays that hold the same."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from bat_fast.cli import main
from bat_fast.config import AttackConfig, EvalConfig, Ratio, TrainConfig
from bat_fast.data import Augment, create_loader, from_arrays, from_loader, join, load
from bat_fast.data.loaders.dali import missing
from bat_fast.evaluate.saved import evaluate_saved
from bat_fast.train import Trainer

CHANCE = np.random.default_rng(0)
X = CHANCE.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
Y = np.arange(60) % 3


def pixels(source, kind="resident"):
    loaded = list(create_loader(source, 7, kind=kind, shuffle=False, seed=0, workers=0))
    return torch.cat([batch.x for batch in loaded]), torch.cat([batch.y for batch in loaded])


FORMS = {
    "HWC bytes": X,
    "CHW bytes": X.transpose(0, 3, 1, 2),
    "tensor": torch.from_numpy(X).permute(0, 3, 1, 2),
    "ToTensor": torch.from_numpy(X).permute(0, 3, 1, 2).float() / 255,
    "float64": X.astype(np.float64) / 255,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("labels", [Y, Y[:, None], Y.astype(np.uint8), torch.from_numpy(Y), Y.tolist()])
def test_arrays(form, labels):
    source = from_arrays(form, labels)
    assert source.images.dtype == torch.uint8, "which can be augmented"
    x, y = pixels(source)
    assert torch.equal(x, torch.from_numpy(X).permute(0, 3, 1, 2).float() / 255)
    assert y.tolist() == Y.tolist()
    assert source.class_names == ("0", "1", "2")
    assert source.mean == pytest.approx(X.mean((0, 1, 2)) / 255)


def test_grey_and_float_arrays():
    grey = from_arrays(X[..., 0], Y)
    assert grey.channels == 1
    assert torch.equal(pixels(grey)[0][:, 0] * 255, torch.from_numpy(X[..., 0]).float())
    fine = CHANCE.random((60, 3, 8, 8), dtype=np.float32)
    assert torch.equal(pixels(from_arrays(fine, Y))[0], torch.from_numpy(fine))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (X[0, 0], Y, r"images must be \[M, H, W, C\] or \[M, C, H, W\] with 1 or 3 channels, got \[8, 3\]"),
        (np.zeros((60, 3, 3, 3), np.uint8), Y, r"images must be \[M, H, W, C\] or"),
        (np.zeros((60, 8, 9, 3), np.uint8), Y, "images must be square, got 8x9"),
        (X.astype(np.int64), Y, r"images must be uint8 or floats in \[0, 1\]"),
        (X.astype(np.float32), Y, r"pixels in \[0, 255\], outside \[0, 1\]: scale them"),
        (X, Y[:-1], r"labels must be \[60\] integers, one for each image, got \[59\]"),
        (X, Y.astype(np.float32), r"labels must be \[60\] integers"),
        (X, Y - 1, r"labels hold class -1, outside \[0, 2\): number the classes from 0"),
    ],
)
def test_wrong_arrays(images, labels, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(images, labels)


class Pictures:
    """A Dataset as torch has them: a length and an index."""

    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return len(X)

    def __getitem__(self, place):
        return self.transform(X[place % 60]), int(Y[place])


def test_loaders_and_data_sets():
    tensors = TensorDataset(torch.from_numpy(X).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(Y))
    wanted = torch.from_numpy(X).permute(0, 3, 1, 2).float() / 255
    for pairs in (
        DataLoader(tensors, batch_size=7),
        tensors,
        Pictures(Image.fromarray),
        Pictures(lambda x: x),
        zip(X, Y, strict=True),
    ):
        x, y = pixels(from_loader(pairs))
        assert torch.equal(x, wanted)
        assert y.tolist() == Y.tolist()
    assert from_loader(Pictures(lambda x: Image.fromarray(x[..., 0]))).channels == 1
    with pytest.raises(ValueError, match="there is no image"):
        from_loader([])
    with pytest.raises(ValueError, match=r"images of \[8, 8, 3\] and \[7, 8, 3\]; resize them"):
        from_loader([(X[0], 0), (X[1, 1:], 1)])


def test_the_parts_are_joined():
    source = from_arrays(X, Y)
    splits = join(source)
    assert [len(part) for part in splits] == [48, 6, 6]
    assert torch.equal(join(source, seed=1).test.index, splits.test.index)
    other = from_arrays(X[:30], Y[:30], name="other")
    for given, wanted in (
        ((None, other), [54, 6, 30]),
        ((other, None), [54, 30, 6]),
        ((other, other), [60, 30, 30]),
        ((0.2, other), [48, 12, 30]),
    ):
        splits = join(source, *given)
        assert [len(part) for part in splits] == wanted
        index = torch.cat([part.index for part in splits])
        assert len(index.unique()) == len(index) == sum(wanted), "no id twice"
        assert all(part.mean == source.mean for part in splits)
    fewer = from_arrays(X[:30], Y[:30] % 2)
    assert join(source, other, fewer).test.num_classes == 3
    with pytest.raises(ValueError, match=r"images of grey: \(1, 8\) channels and pixels, those of training"):
        join(source, from_arrays(X[..., 0], Y, name="grey"))
    with pytest.raises(ValueError, match="the classes of named are not those of arrays: number them alike"):
        join(source, from_arrays(X, Y, name="named", class_names=["a", "b", "c"]))


def config(**changes):
    return TrainConfig(
        epochs=1,
        device="cpu",
        method={"name": "pgd_at"},
        attack=AttackConfig(eps=Ratio("1/10"), steps=1),
        eval=EvalConfig(val_steps=1, test_steps=1),
        **changes,
    )


def test_a_run_records_that_its_data_were_given(tmp_path, capsys):
    out, splits = tmp_path / "run", join(from_arrays(X, Y))
    results = Trainer(config(), out, progress=False, splits=splits).fit()
    assert results["config"]["data"]["name"] == "given in Python"
    assert "6 images of 3 classes validate, so that chance chooses the best epoch" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"data: given in Python \(Trainer\(splits=\.\.\.\)\)"):
        evaluate_saved(out, device="cpu")
    assert main(["eval", str(out), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert "data: given in Python" in error
    assert error.count("\n") == 1
    assert main(["train", "--resume", "--out", str(out)]) == 2
    assert "give the splits to Trainer as before" in capsys.readouterr().err
    Trainer(config(), out, progress=False, splits=splits, resume=True)


def test_one_class_is_nothing_to_learn(tmp_path):
    with pytest.raises(ValueError, match="all training images are of one class, 0, and there is"):
        Trainer(config(), tmp_path / "run", splits=join(from_arrays(X, Y * 0)))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "names", [("images", "labels"), ("train_images", "train_labels"), ("x_train", "y_train")], ids=str
)
def test_npz(names, tmp_path):
    file = tmp_path / "set.npz"
    np.savez(file, **{names[0]: X, names[1]: Y}, classes=np.array(["a", "b", "c"]))
    splits = load("npz", seed=0, root=file)
    assert [len(part) for part in splits] == [48, 6, 6]
    assert splits.train.class_names == ("a", "b", "c")
    for part in splits:
        assert np.array_equal(pixels(part)[0].permute(0, 2, 3, 1).numpy() * 255, X[part.index])
    assert len(load("npz", seed=0, root=file, options={"val": 0.2, "test": 0.5}).test) == 30


def test_npz_with_parts(tmp_path):
    """As MedMNIST has them: labels [M, 1]."""
    arrays = {f"{part}_images": X[:n] for part, n in (("train", 60), ("val", 30), ("test", 24))}
    arrays |= {f"{part}_labels": Y[:n, None] for part, n in (("train", 60), ("val", 30), ("test", 24))}
    np.savez_compressed(tmp_path / "med.npz", **arrays)
    assert [len(part) for part in load("npz", seed=0, root=tmp_path / "med.npz")] == [60, 30, 24]
    with pytest.raises(ValueError, match=r"data\.options\.val: .*med\.npz has a val part of its own"):
        load("npz", seed=0, root=tmp_path / "med.npz", options={"val": 0.1})


def test_wrong_npz(tmp_path):
    with pytest.raises(ValueError, match=r"data\.root is missing: the file\.npz"):
        load("npz", seed=0)
    with pytest.raises(FileNotFoundError, match=r"x\.npz is not a file"):
        load("npz", seed=0, root=tmp_path / "x.npz")
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match=r"x\.npz cannot be read"):
        load("npz", seed=0, root=tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", pictures=X)
    with pytest.raises(ValueError, match=r"y\.npz needs the arrays images and labels; it has pictures"):
        load("npz", seed=0, root=tmp_path / "y.npz")


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_dali_moves_grey_bytes_too():
    source = from_arrays(X[..., 0], Y)
    options = {"shuffle": True, "seed": 0, "augment": Augment(pad=2, flip=True), "workers": 1}
    one, two = (list(create_loader(source, 9, kind=kind, **options)) for kind in ("dali", "resident"))
    assert all(torch.equal(a.x, b.x) for a, b in zip(one, two, strict=True))


def test_without_datasets(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match="the set hf needs the package datasets: pip install datasets"):
        load("hf", seed=0, root=tmp_path)
