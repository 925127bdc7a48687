"""Bits that flip and pages that are lost in any file that is read back: named, or without any effect.

``make test-faults`` tries a thousand bits and two hundred pages, the ordinary suite a part of them.
"""

import os
import random
import shutil

import pytest
import torch
from tally import tally

from bat_fast.cli.settings import read_command
from bat_fast.data import create_loader, load
from bat_fast.data.cache import FOLDER, build_cache
from bat_fast.data.generate import write_tiny_imagenet
from bat_fast.data.sets import tiny_imagenet
from bat_fast.runs.checkpoint import load_checkpoint
from bat_fast.runs.folder import RunFolder
from bat_fast.runs.model_file import load_run
from bat_fast.runs.weights import read_weights
from bat_fast.train import Trainer
from bat_fast.train.resume import newest, rows_of

BITS = int(os.environ.get("BAT_FAST_FAULTS", "240"))
PAGES = BITS // 5
PAGE = 4096


def same(one, two):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


def damage(content: bytes, page: bool, chance: random.Random) -> bytes:
    """``content`` with another bit at a random place, or a page of zeros."""
    changed = bytearray(content)
    place = chance.randrange(len(changed))
    if page:
        start = place // PAGE * PAGE
        changed[start : start + PAGE] = bytes(len(changed[start : start + PAGE]))
    else:
        changed[place] ^= 1 << chance.randrange(8)
    return bytes(changed)


def unnoticed(files, read, seed, what):
    """Damages one file after the other; where ``read`` gives something else than before without a word.

    Args:
        files: to damage in turns.
        what: the files are, in words.
        read: of a file to what is made of it; raises ValueError naming the file, or its folder.
    """
    chance, lost, noticed, named = random.Random(seed), [], 0, 0
    whole = {path: (path.read_bytes(), read(path)) for path in files}
    for number in range(BITS + PAGES):
        path = files[number % len(files)]
        content, wanted = whole[path]
        changed = damage(content, number >= BITS, chance)
        path.write_bytes(changed)
        try:
            found, said = read(path), None
        except ValueError as error:
            found, said = wanted, str(error)
        path.write_bytes(content)
        noticed += said is not None
        if said is not None and "\n" not in said:
            named += path.name in said or str(path.parent) in said or "cache" in said
        if not same(found, wanted):
            lost.append((number, path.name))
    tally("damage", what, BITS + PAGES, named, len(lost))
    assert named == noticed > BITS // 4, "most of a file matters, and the message has its name"
    return lost


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    Trainer(small(epochs=3), out, progress=False).fit()
    return out


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def test_checkpoints(copy):
    files = [copy / "checkpoints" / name for name in ("last.pt", "best.pt", "last-2.pt")]
    assert not unnoticed(files, load_checkpoint, 1, "checkpoints")


def test_weights_to_begin_with(copy):
    assert not unnoticed(
        [copy / "checkpoints" / "best.pt", copy / "model.safetensors"],
        read_weights,
        2,
        "weights to begin with",
    )


def test_the_model(copy):
    def read(path):
        model, said = load_run(path)
        return model.state_dict(), said

    assert not unnoticed([copy / "model.safetensors"], read, 3, "`model.safetensors`")


def test_what_a_run_goes_on_from(copy):
    folder = RunFolder(copy)

    def read(_):
        state, lines = newest(folder)
        if lines:
            raise ValueError("; ".join(lines))
        return state, rows_of(state, folder)[0]

    assert not unnoticed([folder.last, folder.best, folder.last], read, 4, "checkpoints, on `--resume`")
    content = folder.metrics.read_bytes()
    chance = random.Random(5)
    state, rows = read(folder.metrics)
    for number in range(BITS // 4):  # mended, and said so where it matters
        folder.metrics.write_bytes(damage(content, number % 6 == 0, chance))
        assert same(rows_of(state, folder)[0], rows)


def test_settings(copy):
    def read(_):
        return read_command(["--resume", "--out", str(copy)]).config

    assert not unnoticed([copy / "config.yaml"], read, 6, "`config.yaml`")


def test_a_cache(tmp_path):
    root = write_tiny_imagenet(tmp_path / "tiny", classes=2, train=4, val=2)
    folder = root / FOLDER
    build_cache(tiny_imagenet.contents(root), folder, workers=1)
    shutil.rmtree(root / "train")  # what is compared with its files; a cache also goes alone

    def read(_):
        splits = load("tiny_imagenet", seed=0, root=folder)
        facts = [(s.num_classes, s.name, s.class_names, s.mean, s.std) for s in splits]
        loaders = (create_loader(s, 4, kind="resident", shuffle=False, seed=0) for s in splits)
        return facts, [tuple(batch) for loader in loaders for batch in loader]

    files = [folder / name for name in ("meta.json", "labels.npy", "checks.npy", "images.npy")]
    assert not unnoticed(files, read, 7, "a cache of `prepare`")


def test_a_cache_that_is_being_built(tmp_path, monkeypatch):
    """Damage of any kind gives the same bytes in the end."""
    monkeypatch.setattr("bat_fast.data.cache._CHUNK", 2)
    root = write_tiny_imagenet(tmp_path / "tiny", classes=2, train=3, val=1)
    contents = tiny_imagenet.contents(root)
    whole = build_cache(contents, tmp_path / "whole", workers=1)

    def stop(done, _):
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cache(contents, tmp_path / "begun", workers=1, progress=stop)
    chance = random.Random(8)
    for number in range(BITS // 20):
        out = tmp_path / str(number)
        draft = shutil.copytree(tmp_path / "begun.partial", tmp_path / f"{number}.partial")
        path = draft / ("journal.json", "images.npy")[number % 2]
        path.write_bytes(damage(path.read_bytes(), number % 4 > 1, chance))
        assert build_cache(contents, out, workers=1) == whole
        assert (out / "images.npy").read_bytes() == (tmp_path / "whole" / "images.npy").read_bytes()
    (tmp_path / "begun.partial" / "images.npy").unlink()
    assert build_cache(contents, tmp_path / "begun", workers=1) == whole
