import json
import multiprocessing
import os
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from bat_fast import data
from bat_fast.cli import main
from bat_fast.config import AttackConfig, EvalConfig, OptimConfig, PhasesConfig, Ratio
from bat_fast.study.folder import Plan, StudyFolder
from bat_fast.study.jobs import read_splits, work, work_together
from bat_fast.study.lean import correctness, train_model
from bat_fast.study.scores import read_scores, write_scores
from bat_fast.study.subset import subset
from bat_fast.train import Trainer, build
from bat_fast.train.step import TrainStep

PLAN = Plan(k=3, ratio=0.7, attack="pgd1", seed=0)


@pytest.fixture(scope="module")
def config(small):
    return small(
        epochs=1,
        batch_size=512,
        attack=AttackConfig(eps=Ratio("1/10"), steps=1),
        eval=EvalConfig(val_steps=1, test_steps=1),
    )


@pytest.fixture(scope="module")
def study(config, tmp_path_factory):
    """A study of three models, one after the other; tests change nothing in it."""
    folder = StudyFolder(tmp_path_factory.mktemp("studies") / "study")
    folder.open(PLAN, config)
    assert work(folder, config, range(3), "cpu") == 3
    return folder


def test_a_subset_is_of_its_number_alone():
    first = subset(101, 0.7, 0, 5)
    assert int(first.sum()) == 71
    assert first.equal(subset(101, 0.7, 0, 5))
    others = [subset(101, 0.7, 0, 6), subset(101, 0.7, 1, 5)]
    assert not any(first.equal(other) for other in others)
    for ratio in (0.001, 0.999):
        with pytest.raises(ValueError, match=r"0\.7 is usual"):
            subset(101, ratio, 0, 0)


def test_every_sample_is_seen_by_its_share_of_the_models():
    seen = torch.stack([subset(50, 0.7, 3, job) for job in range(2000)]).float().mean(0)
    spread = (0.7 * 0.3 / 2000) ** 0.5
    assert (seen - 0.7).abs().max() < 6 * spread


@pytest.mark.slow
def test_a_model_of_a_study_is_that_of_a_run(config, tmp_path, monkeypatch):
    phases = replace(config.data, phases=PhasesConfig(ends=(1,), batches=(512, 256)))
    ema = OptimConfig(
        lr=0.05, schedule="cyclic", average="ema", average_decay=0.9, on_nonfinite="restore", clip=1.0
    )
    config = replace(config, epochs=2, data=phases, optim=ema, eval=replace(config.eval, choose="last"))
    made = []

    class Broken(TrainStep):  # a NaN in the third step of the second epoch
        def __call__(self, *args, **options):
            made.append(1)
            if len(made) % 9 == 6:
                next(self.model.parameters()).data.view(-1)[0] = torch.nan
            return super().__call__(*args, **options)

    monkeypatch.setattr(build, "TrainStep", Broken)
    trainer = Trainer(config, tmp_path / "run", progress=False)
    trainer.fit()
    assert len(made) == 3 + 6
    assert trainer.rows[1]["train/left_out"] == 1
    model = train_model(config, data.load("digits", seed=0), "cpu")
    wanted = trainer.evaluated.state_dict()
    for name, value in model.state_dict().items():
        assert value.equal(wanted[name]), name


def test_what_is_right_is_in_the_order_of_the_split(config):
    splits = read_splits(config)
    model = train_model(config, splits, "cpu").eval()
    found = correctness(model, splits.test, None, 100)
    with torch.no_grad():
        wanted = model(splits.test.images).argmax(1) == splits.test.labels
    assert found.clean.equal(wanted)
    assert found.robust is None
    assert 0 < wanted.float().mean() < 1


def test_an_answer_depends_on_the_number_of_the_model_alone(study, config, tmp_path):
    other = StudyFolder(tmp_path / "other")
    other.open(replace(PLAN, k=2), config)
    assert work(other, config, [1], "cpu") == 1
    assert other.answer(1).read_bytes() == study.answer(1).read_bytes()
    assert other.status() == ([1], [], [0])
    other.open(PLAN, config)  # more models
    assert other.status() == ([1], [], [0, 2])


def test_done_models_stay_and_running_ones_are_left_alone(study, config, tmp_path):
    before = study.answer(0).stat().st_mtime_ns
    assert work(study, config, range(3), "cpu") == 0
    assert study.answer(0).stat().st_mtime_ns == before
    other = StudyFolder(tmp_path / "other")
    other.open(PLAN, config)
    context = multiprocessing.get_context("fork")
    taken = context.Event()

    def hold():
        other.lock(0).take()
        taken.set()
        time.sleep(60)

    holder = context.Process(target=hold)
    holder.start()
    try:
        assert taken.wait(60)
        assert other.status() == ([], [0], [1, 2])
        assert work(other, config, [0], "cpu") == 0
    finally:
        holder.kill()  # as a machine does that is switched off
        holder.join()
    assert other.status() == ([], [], [0, 1, 2])


def test_a_study_that_cannot_be_judged_or_compared_does_not_begin(tmp_path, capsys):
    words = ["study", "memorisation", "--recipe", "digits-pgd-at", "--device", "cpu"]
    for more, text in (
        (["--attack", "pgd10x"], "--attack: there is no attack 'pgd10x'"),
        (["--mem_scores", str(tmp_path / "none.npz")], "--mem_scores: there is no"),
    ):
        assert main([*words, *more, "--out", str(tmp_path / "study")]) == 2
        assert text in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_another_study_or_a_damaged_one_is_refused(study, config, tmp_path):
    with pytest.raises(ValueError, match=r"ratio 0\.7, and 0\.5 was asked"):
        study.open(replace(PLAN, ratio=0.5), config)
    with pytest.raises(ValueError, match="batch_size"):
        study.open(PLAN, replace(config, batch_size=100))
    for change in ({"epochs": 4}, {"model": replace(config.model, init="w.pt")}):  # a run may go on with them
        for look in (study.open, study.check):
            with pytest.raises(ValueError, match=r"epochs was 1 and is now 4|init was None"):
                look(PLAN, replace(config, **change))
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="holds no study"):
        StudyFolder(tmp_path).open(PLAN, config)
    copy = StudyFolder(tmp_path / "copy")
    copy.open(PLAN, config)
    content = bytearray(study.answer(0).read_bytes())
    for place in range(len(content) // 3, 2 * len(content) // 3):
        content[place] ^= 1
    copy.answer(0).write_bytes(content)
    with pytest.raises(ValueError, match=r"0000.npz.*delete it"):
        copy.answers()
    copy.plan.write_text(copy.plan.read_text().replace("0.7", "0.6"))
    with pytest.raises(ValueError, match=r"study\.json is damaged"):
        copy.read_plan()


def test_scores_are_those_of_the_bits_and_are_read_back(study, config):
    splits = read_splits(config)
    found = write_scores(study, splits)
    assert int(found["k"]) == 3
    bits = study.answers()
    seen = np.unpackbits(bits["subset"], axis=1, count=len(splits.train)).astype(bool)
    assert (seen.sum(1) == round(0.7 * len(splits.train))).all()
    right = np.unpackbits(bits["train_robust"], axis=1, count=len(splits.train))
    i = int(np.flatnonzero((seen.sum(0) > 0) & (seen.sum(0) < 3))[0])
    wanted = right[seen[:, i], i].mean() - right[~seen[:, i], i].mean()
    assert found["tr_robust_mem"][i] == pytest.approx(wanted)
    scores = read_scores(study.path, splits.train)
    assert scores.of(splits.train.index.numpy(), "robust")[i] == pytest.approx(wanted)
    assert np.isnan(scores.of(splits.test.index.numpy())).all()


def test_published_scores_are_taken_after_their_labels_are_compared(config, tmp_path):
    train = read_splits(config).train
    labels = np.zeros(1797, np.int64)
    labels[train.index.numpy()] = train.labels.numpy()
    mem = np.arange(1797) / 1797
    file = tmp_path / "published.npz"
    np.savez(file, tr_mem=mem, tr_labels=labels)
    found = read_scores(file, train)
    assert found.of(train.index.numpy()) == pytest.approx(mem[train.index.numpy()])
    with pytest.raises(ValueError, match="no robust ones"):
        found.of(train.index.numpy(), "robust")
    noisy = data.add_label_noise(train, kind="symmetric", rate=0.5, seed=1)
    assert read_scores(file, noisy).ids.shape == (1797,)  # the true labels are theirs
    np.savez(file, tr_mem=mem, tr_labels=np.roll(labels, 1))
    with pytest.raises(ValueError, match=r"another order: \d+ of 1258 labels differ"):
        read_scores(file, train)
    np.savez(file, mem=mem)
    with pytest.raises(ValueError, match="must hold tr_mem"):
        read_scores(file, train)
    file.write_text("no numbers")
    with pytest.raises(ValueError, match=r"no \.npz file"):
        read_scores(file, train)


@pytest.mark.skipif(not os.environ.get("BAT_FAST_FAULTS"), reason="a minute: make test-faults")
def test_two_processes_share_a_study(study, config, tmp_path):
    other = StudyFolder(tmp_path / "together")
    other.open(PLAN, config)
    work_together(other, config, range(3), 2)
    assert [other.answer(job).read_bytes() for job in range(3)] == [
        study.answer(job).read_bytes() for job in range(3)
    ]


def test_the_command_goes_on_where_it_was(study, config, tmp_path, capsys):
    words = ["study", "memorisation", "--recipe", "digits-pgd-at", "--epochs", "1", "--attack.steps", "1"]
    words += ["--batch_size", "512", "--device", "cpu", "--attack", "none", "--out", str(tmp_path / "s")]
    assert main([*words, "--k", "3", "--job", "1/2"]) == 0
    assert "1 done, 0 running, 2 open" in capsys.readouterr().out
    assert main(["study", "memorisation", str(tmp_path / "s")]) == 0
    out = capsys.readouterr().out
    assert "3 done" in out
    assert "3 models on 70% of 1258 samples" in out
    assert json.loads((tmp_path / "s" / "study.json").read_text())["attack"] is None
    mine = str(study.scores)
    write_scores(study, read_splits(config))
    assert main(["study", "memorisation", str(tmp_path / "s"), "--status", "--mem_scores", mine]) == 0
    assert "rank correlation with" in capsys.readouterr().out


def test_bad_words_are_one_line(study, tmp_path, capsys):
    for words, text in (
        ([], None),
        (["memorization"], "did you mean memorisation?"),
        (["memorisation", "--k", "1"], "--k must be at least 2"),
        (["memorisation", "--job", "3/3"], "--job must be"),
        (["memorisation", str(study.path), "--job", "9"], "models 0 to 2"),
        (["memorisation", str(study.path), "--ratio", "0.5"], "ratio 0.7, and 0.5"),
        (["memorisation", str(tmp_path)], "is no folder of a study"),
        (["memorisation", "--workers", "0"], "--workers"),
        (["memorisation", "--rato", "0.5"], "did you mean --ratio?"),
    ):
        assert main(["study", *words]) == (2 if text else 0)
        error = capsys.readouterr().err
        assert (text or "") in error
        assert error.count("\n") == (1 if text else 0), error
    assert list(tmp_path.iterdir()) == []
