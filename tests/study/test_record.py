import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bat_fast import data
from bat_fast.batch import Batch
from bat_fast.cli import main
from bat_fast.methods import Terms
from bat_fast.study.compare import correlations, read_per_sample, train_split
from bat_fast.study.curvature import CurvatureRecord, curvature, read_curvature
from bat_fast.study.proxies import proxies
from bat_fast.study.rank import ranks, spearman
from bat_fast.study.record import JudgedRecord, SampleRecord, read_judged, read_record
from bat_fast.study.scores import Scores
from bat_fast.study.sealed_arrays import read_arrays
from bat_fast.train import Trainer


@pytest.fixture(scope="module")
def recorded(small, tmp_path_factory):
    """A run of three epochs that was stopped after two and went on; its folder and its weights."""
    out = tmp_path_factory.mktemp("runs") / "run"
    config = small(epochs=3, batch_size=512)

    class Stop(SampleRecord):
        def epoch(self, row):
            super().epoch(row)
            if row["epoch"] == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(
            config, out, progress=False, observers=[JudgedRecord(2), CurvatureRecord(2, draws=1), Stop()]
        ).fit()
    observers = [SampleRecord(), JudgedRecord(2), CurvatureRecord(2, draws=1)]
    trainer = Trainer(config, out, progress=False, resume=True, observers=observers)
    trainer.fit()
    return out, trainer


def test_an_observer_changes_nothing_and_a_resumed_run_has_every_epoch(recorded, small, tmp_path):
    out, trainer = recorded
    plain = Trainer(small(epochs=3, batch_size=512), tmp_path / "plain", progress=False)
    plain.fit()
    for name, value in plain.model.state_dict().items():
        assert value.equal(trainer.model.state_dict()[name]), name
    ids, labels, table = read_record(out)
    train = trainer.splits.train
    assert ids.tolist() == train.index.tolist()
    assert labels.tolist() == train.labels.tolist()
    assert {name: values.shape for name, values in table.items()} == dict.fromkeys(
        ("margin", "loss", "q"), (3, len(train))
    )
    assert not any(np.isnan(values).any() for values in table.values())
    for row, margin, loss in zip(trainer.rows, table["margin"], table["loss"], strict=True):
        assert (margin > 0).mean() == pytest.approx(row["train/robust_acc"], abs=2e-3)
        assert np.log1p(loss).mean() < 3


class _Trainer(NamedTuple):
    """What a record asks a trainer."""

    splits: data.Splits
    feed: SimpleNamespace
    folder: SimpleNamespace
    epoch: int = 0
    device: str = "cpu"
    world: SimpleNamespace = SimpleNamespace(first=True)


@pytest.fixture
def asked(tmp_path):
    splits = data.load("digits", seed=0)
    return _Trainer(
        splits, SimpleNamespace(ids=int(splits.train.index.max()) + 1), SimpleNamespace(path=tmp_path)
    )


def test_a_kill_between_checkpoint_and_record_loses_one_epoch(asked, tmp_path):
    record, n = SampleRecord(), len(asked.splits.train)
    batch = Batch(torch.zeros(n, 1), asked.splits.train.labels, asked.splits.train.index)
    terms = Terms(torch.zeros(()), torch.zeros(n), {}, torch.randn(n, 10))
    record.begin(asked)
    record.step(batch, terms, 0)
    record.epoch({"epoch": 1})
    record = SampleRecord()
    record.begin(asked._replace(epoch=2))  # the second is done, and its record was not written
    record.step(batch, terms, 2)
    record.epoch({"epoch": 3})
    assert np.isnan(read_record(tmp_path)[2]["margin"]).all(1).tolist() == [False, True, False]


def test_a_kill_between_checkpoint_and_observer_loses_no_measurement(recorded, tmp_path):
    out = shutil.copytree(recorded[0], tmp_path / "copy")
    files = [out / "samples" / f"{kind}-0003.npz" for kind in ("judged", "curvature")]
    wanted = [read_arrays(file) for file in files]
    observers = [JudgedRecord(2), CurvatureRecord(2, draws=1)]
    trainer = Trainer(recorded[1].config, out, progress=False, resume=True)
    for place in ({}, None):  # in the middle of epoch 4, whose model is not that of the third; at its end
        trainer._place = place
        for observer, file in zip(observers, files, strict=True):
            file.unlink()
            observer.begin(trainer)
            assert file.exists() == (place is None)
            file.touch()
    trainer.folder.lock.end()
    for file, arrays in zip(files, wanted, strict=True):
        found = read_arrays(file)
        assert found.keys() == arrays.keys()
        for name, values in arrays.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-4)


def test_a_record_that_begins_late_is_refused(asked, tmp_path):
    with pytest.raises(ValueError, match="record_samples: 2 epochs of this run are not recorded"):
        SampleRecord().begin(asked._replace(epoch=2))
    assert not list(tmp_path.iterdir())


def test_the_first_of_several_processes_keeps_the_record(asked, tmp_path):
    record = SampleRecord()
    record.begin(asked._replace(world=SimpleNamespace(first=False)))
    batch = Batch(*[torch.zeros(2, dtype=torch.int64)] * 3)
    record.step(batch, Terms(torch.zeros(()), torch.zeros(2), {}, torch.zeros(2, 3)), 0)
    record.epoch({"epoch": 1})
    assert not list(tmp_path.iterdir())


def test_what_a_step_leaves_is_the_definition(tmp_path):
    logits, y = torch.randn(6, 5) * 3, torch.randint(0, 5, (6,))
    index = torch.tensor([9, 2, 5, 0, 7, 4])
    record = SampleRecord()
    record._ids, record._folder = index.sort().values, tmp_path
    record._table = torch.full((10, 3), torch.nan)
    record.step(Batch(torch.zeros(6, 1, 1, 1), y, index), Terms(logits.sum(), logits[:, 0], {}, logits), 0)
    record.epoch({"epoch": 1})
    found = read_arrays(tmp_path / "epoch-0001.npz")
    order = index.argsort()
    p = logits.softmax(1)[order]
    true = F.one_hot(y[order], 5).bool()
    other = logits[order].masked_fill(true, -torch.inf).amax(1)
    wanted = {
        "margin": logits[order][true] - other,
        "loss": F.cross_entropy(logits, y, reduction="none")[order],
        "q": p.masked_fill(true, 0).amax(1),
    }
    for name, values in wanted.items():
        assert found[name] == pytest.approx(values.numpy(), rel=2e-3, abs=1e-4), name
    assert record._table.isnan().all()


def test_a_method_without_logits_is_refused():
    record = SampleRecord()
    with pytest.raises(TypeError, match="record_samples"):
        record.step(Batch(*[torch.zeros(1)] * 3), Terms(torch.zeros(()), torch.zeros(1), {}), 0)


def test_the_model_is_judged_on_both_splits(recorded):
    out, trainer = recorded
    found = read_judged(out)
    assert list(found) == [2, 3]
    sizes = {"train": len(trainer.splits.train), "test": len(trainer.splits.test)}
    for epoch in found.values():
        assert set(epoch) == {f"{split}_{kind}" for split in sizes for kind in ("clean", "robust")}
        for name, right in epoch.items():
            assert len(right) == sizes[name.partition("_")[0]]
        assert epoch["test_robust"].mean() <= epoch["test_clean"].mean()


def test_curvature_is_a_proxy_where_it_was_measured(recorded, tmp_path):
    out, trainer = recorded
    files = sorted((out / "samples").glob("curvature-*"))
    assert [file.stem[-4:] for file in files] == ["0002", "0003"]
    assert trainer.model.training  # as it was
    train, some = trainer.splits.train, torch.tensor([700, 3])
    alone = train.images[some], train.labels[some], train.index[some]
    wanted = curvature(trainer.evaluated.eval(), *alone, draws=1)
    last = read_arrays(files[1])["curvature"]
    assert last[some.numpy()] == pytest.approx(wanted.numpy(), rel=1e-2)
    found = read_per_sample(shutil.copytree(out, tmp_path / "copy"))
    assert found["curvature"] == pytest.approx((read_arrays(files[0])["curvature"] + last) / 2)
    row = correlations(found, Scores(found["index"], found["curvature"], None))["curvature"]["clean"]
    assert row.value == pytest.approx(1)
    for file in (tmp_path / "copy" / "samples").glob("curvature-*"):
        file.unlink()
    assert read_curvature(tmp_path / "copy") is None
    assert "curvature" not in read_per_sample(tmp_path / "copy")


def test_proxies_of_four_samples():
    nan = np.nan
    margin = np.array([[1, -1, -1, nan], [-1, -2, 1, 2], [1, -1, 2, nan]], float)
    loss = np.array([[0.1, 2, 1, nan], [1, 2, 0.5, 0.3], [0.1, 2, 0.2, nan]], float)
    found = proxies(margin, loss, np.full((3, 4), 0.25))
    assert found["forgetting"].tolist() == [1, 3, 0, 0]  # the second was never right
    assert found["first_learnt"].tolist() == [1, 4, 2, 2]
    assert found["aum"] == pytest.approx([1 / 3, -4 / 3, 2 / 3, 2])
    assert found["loss_sum"] == pytest.approx([1.2, 6, 1.7, 0.9])
    assert found["probability"][3] == pytest.approx(np.exp(-0.3))
    assert found["confidence"][3] == pytest.approx(np.exp(-0.3) - 0.25)
    assert found["q"].tolist() == [0.25] * 4


def test_rank_correlation():
    from scipy.stats import rankdata, spearmanr

    rng = np.random.default_rng(int(os.environ["BAT_FAST_TEST_SEED"]))
    a = rng.integers(0, 8, 300).astype(float)  # with ties
    b = a + 4 * rng.standard_normal(300)
    assert ranks(a) == pytest.approx(rankdata(a) - 1)
    found = spearman(a, b)
    assert found.value == pytest.approx(spearmanr(a, b).statistic)
    assert found.low < found.value < found.high
    width = 1.96 * (1 - found.value**2) / 300**0.5  # of the normal approximation
    assert (found.high - found.low) / 2 == pytest.approx(width, rel=0.35)
    assert spearman(a, b) == found
    b[0] = np.nan
    assert spearman(a, b).n == 299
    assert np.isnan(spearman(a, np.ones(300)).value)


def test_the_command_writes_and_compares(recorded, tmp_path, capsys):
    out, trainer = recorded
    train = trainer.splits.train
    margin = proxies(**read_record(out)[2])["aum"]
    file = tmp_path / "mem.npz"
    ids = train.index.numpy()
    np.savez(file, tr_mem=-margin, tr_labels=train.labels.numpy(), tr_index=ids)
    assert main(["study", "proxies", str(out), "--mem_scores", str(file)]) == 0
    text = capsys.readouterr().out
    assert "aum           +1.000 [+1.000, +1.000]" in text
    with np.load(out / "per_sample.npz") as found:
        assert found["aum"] == pytest.approx(margin)
        assert found["index"].tolist() == ids.tolist()
    assert main(["study", "proxies", str(tmp_path)]) == 2
    assert "--record_samples" in capsys.readouterr().err


def test_the_data_of_an_older_run():
    """Its settings have no `eval.choose`."""
    stored = Path(__file__).parents[1] / "runs" / "stored"
    assert len(train_split(stored).train) == 1258


def test_a_record_with_a_gap_is_refused(recorded, tmp_path):
    copy = shutil.copytree(recorded[0], tmp_path / "copy")
    (copy / "samples" / "epoch-0002.npz").unlink()
    with pytest.raises(ValueError, match="gap"):
        read_record(copy)
    shutil.rmtree(copy / "samples")
    with pytest.raises(FileNotFoundError, match="study dynamics"):
        read_judged(copy)


@pytest.mark.slow
def test_the_verb_train_records_too(tmp_path):
    words = ["train", "--recipe", "digits-pgd-at", "--epochs", "1", "--attack.steps", "1"]
    words += ["--batch_size", "512", "--eval.val_steps", "1", "--eval.test_steps", "1", "--device", "cpu"]
    out = tmp_path / "run"
    assert main([*words, "--optim.schedule", "constant", "--out", str(out), "--record_samples"]) == 0
    assert main(["train", "--resume", "--out", str(out), "--epochs", "2"]) == 0  # a record goes on
    assert read_record(out)[2]["q"].shape == (2, 1258)
