"""Sets of Hugging Face, as save_to_disk writes them."""

import numpy as np
import pytest
import torch
from PIL import Image

from bat_fast.data import choose, create_loader, load

hf = pytest.importorskip("datasets")
CHANCE = np.random.default_rng(0)


def table(count, size=20, classes=("a", "b"), **columns):
    low = CHANCE.integers(0, 256, (count, size, size + 4, 3), dtype=np.uint8)
    names = {"image": hf.Image(), "label": hf.ClassLabel(names=list(classes))}
    rows = {"image": [Image.fromarray(x) for x in low], "label": [k % len(classes) for k in range(count)]}
    made = hf.Dataset.from_dict(rows, hf.Features(names))
    return made.rename_columns(columns) if columns else made


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        ({"train": 20}, [16, 2, 2]),
        ({"train": 20, "test": 10}, [18, 2, 10]),
        ({"train": 20, "validation": 10}, [18, 2, 10]),
        ({"train": 20, "valid": 8, "test": 10}, [20, 8, 10]),
    ],
)
def test_parts(parts, wanted, tmp_path):
    tables = {name: table(count) for name, count in parts.items()}
    hf.DatasetDict(tables).save_to_disk(str(tmp_path))
    splits = load("hf", seed=0, root=tmp_path, options={"size": 8})
    assert [len(part) for part in splits] == wanted
    assert splits.train.class_names == ("a", "b")
    rows = [image for each in tables.values() for image in each["image"]]
    for part in splits:
        (batch,) = create_loader(part, 40, kind="torch", shuffle=False, seed=0, workers=1)
        (again,) = create_loader(part, 40, kind="resident", shuffle=False, seed=0, workers=2)
        assert torch.equal(batch.x, again.x)
        assert batch.y.tolist() == [number % 2 for number in batch.index.tolist()]
        side = 18  # 7/8 of 20, rounded upwards
        box = (3, 1, 3 + side, 1 + side)
        for x, number in zip(batch.x, batch.index.tolist(), strict=True):
            cut = rows[number].convert("RGB").crop(box).resize((8, 8), Image.Resampling.BILINEAR)
            assert torch.equal((x * 255).byte(), torch.from_numpy(np.array(cut)).permute(2, 0, 1))
    assert choose(splits.train, "cpu")[0] == "torch"


def test_one_table_and_other_columns(tmp_path):
    table(20, image="picture", label="species").save_to_disk(str(tmp_path))
    splits = load("hf", seed=0, root=tmp_path, options={"size": 8})
    assert [len(part) for part in splits] == [16, 2, 2]
    same = load("hf", seed=0, root=tmp_path, options={"size": 8, "image": "picture", "label": "species"})
    assert torch.equal(same.train.index, splits.train.index)
    with pytest.raises(ValueError, match="there is no column colour; there are picture, species"):
        load("hf", seed=0, root=tmp_path, options={"label": "colour"})


def test_what_is_no_such_set(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        load("hf", seed=0, root=tmp_path / "nowhere")
    with pytest.raises((ValueError, FileNotFoundError), match=str(tmp_path)):
        load("hf", seed=0, root=tmp_path)
    hf.DatasetDict({"test": table(4)}).save_to_disk(str(tmp_path))
    with pytest.raises(ValueError, match="has no split train; it has test"):
        load("hf", seed=0, root=tmp_path)
