"""Data sets of other packages, and those that can be prepared."""

from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from bat_fast import data
from bat_fast.cli import main
from bat_fast.data import prepare, sets
from bat_fast.data.sets import synthetic, tiny_imagenet

OWN = data.names()


def _entry_points(monkeypatch, name, module):
    point = EntryPoint(name, "other_package.third", "bat_fast.data")
    monkeypatch.setattr(EntryPoint, "load", lambda _: module)
    monkeypatch.setattr(sets, "entry_points", lambda group: [point] if group == point.group else [])


def load(seed: int, count: int = 100):
    return synthetic.load(seed, size=8, classes=2, count=count)


def test_a_data_set_of_another_package(monkeypatch):
    third = SimpleNamespace(load=load, SHAPE=data.Shape(2, 3, 8), TRAIN_IMAGES=80)
    _entry_points(monkeypatch, "third", third)
    assert data.names() == [*OWN, "third"]
    assert data.shape("third") == data.Shape(2, 3, 8)
    assert data.train_images("third") == len(data.load("third", seed=0).train) == 80
    assert len(data.load("third", seed=0, options={"count": 200}).train) == 160
    with pytest.raises(ValueError, match=r"data\.options\.cuont: data set third .* it has: count"):
        data.load("third", seed=0, options={"cuont": 200})
    with pytest.raises(ValueError, match=r"there is no data set 'fourth'; there are cifar10, .*, third"):
        data.shape("fourth")


def test_it_need_not_say_more_than_load(monkeypatch):
    _entry_points(monkeypatch, "third", SimpleNamespace(load=load))
    assert data.shape("third") is None
    assert data.train_images("third") is None
    assert "third" not in prepare.names()


def test_two_data_sets_of_one_name(monkeypatch):
    _entry_points(monkeypatch, "digits", SimpleNamespace(load=load))
    assert data.names() == OWN
    with pytest.raises(ValueError, match=r"data set digits exists in bat_fast and in other_package\.third"):
        data.load("digits", seed=0)


@pytest.mark.parametrize("module", [SimpleNamespace(), SimpleNamespace(load=3)])
def test_what_is_no_data_set(monkeypatch, module):
    _entry_points(monkeypatch, "third", module)
    with pytest.raises(ValueError, match=r"third: other_package\.third must be a module with load\(seed"):
        data.shape("third")
    assert "tiny-imagenet" in prepare.names(), "the others are not in its way"


def test_a_data_set_with_contents_can_be_prepared(monkeypatch, tiny_root, tmp_path, capsys):
    assert prepare.names() == ["image-folder", "imagenet", "imagenette", "tiny-imagenet"]
    third = SimpleNamespace(load=tiny_imagenet.load, contents=tiny_imagenet.contents)
    _entry_points(monkeypatch, "our_third", third)
    assert prepare.names()[-2:] == ["tiny-imagenet", "our-third"]
    assert main(["prepare", "our-third", str(tiny_root), "--out", str(tmp_path / "cache")]) == 0
    assert "110 train + 20 test, 64x64" in capsys.readouterr().out
    assert len(data.load("our_third", seed=0, root=tmp_path / "cache").train) == 105
