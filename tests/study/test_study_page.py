import json
import os
import re
import shutil
import signal
from html.parser import HTMLParser

import numpy as np
import pytest

from bat_fast.cli import main
from bat_fast.config import AttackConfig, EvalConfig, Ratio
from bat_fast.study import sections
from bat_fast.study.ablation import CONDITIONS, ablate, effects, left_out
from bat_fast.study.attributions import write_attributions
from bat_fast.study.folder import Plan, StudyFolder
from bat_fast.study.groups import Groups, places_of, read_groups
from bat_fast.study.jobs import read_splits, work
from bat_fast.study.record import JudgedRecord, SampleRecord
from bat_fast.study.scores import write_scores
from bat_fast.study.sealed_arrays import read_arrays, write_arrays
from bat_fast.train import Trainer


@pytest.fixture(scope="module")
def folders(small, tmp_path_factory):
    """A study of two short models, with an ablation whose files are made up, and a recorded run."""
    path = tmp_path_factory.mktemp("a 'study' <b>")
    ball = AttackConfig(eps=Ratio("1/10"), steps=1)
    config = small(epochs=1, batch_size=512, attack=ball, eval=EvalConfig(val_steps=1, test_steps=1))
    study = StudyFolder(path / "study")
    study.open(Plan(k=2, ratio=0.7, attack="pgd1", seed=0), config)
    work(study, config, range(2), "cpu")
    splits = read_splits(config)
    write_scores(study, splits)
    (study.path / "ablation").mkdir()
    rng = np.random.default_rng(int(os.environ["BAT_FAST_TEST_SEED"]))
    for condition in CONDITIONS:
        for seed in (0, 1):
            right = {
                f"test_{kind}": np.packbits(rng.random(len(splits.test)) < 0.8)
                for kind in ("clean", "robust")
            }
            write_arrays(study.path / "ablation" / f"{condition}-robust-{seed}.npz", right)
    trainer = Trainer(config, path / "run", progress=False, observers=[SampleRecord(), JudgedRecord()])
    trainer.fit()
    return study, config, trainer.folder.path


def groups_of(atypical):
    n = len(atypical)
    return Groups("robust", atypical, atypical, atypical.astype(float), np.arange(n), np.arange(n))


def test_what_is_left_out():
    atypical = np.arange(40) < 12
    groups, q = groups_of(atypical), np.linspace(1, 0, 40)
    found = {condition: left_out(groups, q, condition, 0) for condition in CONDITIONS}
    assert found["all"].tolist() == []
    assert found["atypical"].tolist() == list(range(12))
    assert len(found["typical"]) == 12
    assert not atypical[found["typical"]].any()
    assert found["harmful"].tolist() == [0, 1, 2]  # the highest q
    assert len(found["benign"]) == 3
    assert set(found["benign"]) <= set(range(3, 12))
    assert found["typical"].tolist() != left_out(groups, q, "typical", 1).tolist()


def test_places():
    assert places_of(np.array([5, 3, 9]), np.array([9, 5])).tolist() == [2, 0]
    with pytest.raises(ValueError, match="other samples"):
        places_of(np.array([5, 3, 9]), np.array([4]))


def test_too_few_are_atypical(folders):
    study, config, _ = folders
    with pytest.raises(ValueError, match="2 samples are atypical"):
        ablate(study, config, groups_of(np.arange(9) < 2), None, [0])


def test_effects_are_means_over_seeds(folders):
    study, _, _ = folders
    groups = read_groups(study, "robust")
    rows = list(effects(study, groups))
    assert {one.condition for one in rows} == set(CONDITIONS)
    by_key = {(one.condition, one.group, one.kind): one for one in rows}
    one, other = (by_key[name, "atypical", "robust"] for name in ("atypical", "typical"))
    assert one.mean.n == 2
    assert one.against.value == pytest.approx(one.mean.value - other.mean.value)
    assert other.against is None


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def samples_of_levels(study):
    """Memorisation by two models is -1, 0 or 1, or unknown: at most eight samples of each value are shown."""
    mem = read_arrays(study.scores)["tr_robust_mem"]
    below, above = (mem < 0.05).sum(), (mem > 0.85).sum()
    assert below + above == (~np.isnan(mem)).sum()
    return sum(min(8, count) for count in (below, above))


def test_a_training_sample_is_shown_with_what_it_decides(folders):
    splits = read_splits(folders[1])
    mem = np.zeros(len(splits.train))
    mem[7] = 0.4
    found = {
        "k": np.array(400), "tr_mem": mem, "pairs_train": np.array([7, 7, 9]),
        "pairs_test": np.array([3, 5, 3]), "pairs_influence": np.array([0.5, 0.3, 0.2], np.float32),
        "pairs_influence_se": np.array([0.03, 0.04, 0.05], np.float32),
    }  # fmt: skip
    part = sections.influence(found, splits, "clean", 0.7)  # 4 errors of 400 models are 0.22
    (gallery,) = part["galleries"]
    notes = [image["note"] for image in gallery["images"]]
    assert notes == [
        f"id {splits.train.index[7]}, memorised 0.40",
        f"id {splits.test.index[3]}, influence 0.50 ± 0.03",
        f"id {splits.test.index[5]}, influence 0.30 ± 0.04",
    ]
    assert part["notes"][0].startswith("3 pairs")
    assert "2 of them are at least 0.22" in part["notes"][0]


def test_attributions_are_part_of_the_page(folders, tmp_path):
    study = StudyFolder(shutil.copytree(folders[0].path, tmp_path / "study"))
    gini = np.array([[0.4, 0.5, 0.6], [0.6, 0.7, 0.8]])
    kept = {
        "names": np.array(["runs/<i>", "robust"]), "gradient": gini, "integrated": gini**2,
        "left": np.zeros(2), "images": np.random.rand(3, 3, 8, 8).astype(np.float32),
        "labels": np.array([0, 1, 2]), "shown": np.random.rand(2, 2, 3, 8, 8).astype(np.float32),
    }  # fmt: skip
    write_attributions(study.path, kept)
    assert main(["study", "report", str(study.path)]) == 0
    text = (study.path / "report.html").read_text()
    assert "+0.200 ± 0.000" in text
    assert "study attributions" not in text
    assert "bat-fast study dynamics makes such a run" in text
    tags = Tags(text).found
    assert not [tag for tag, _ in tags if tag == "i"]
    (first, *_) = [one for tag, one in tags if tag == "img" and "attributions by 2 models" in one["alt"]]
    assert (first["width"], first["height"]) == ("44", "8")


def test_the_page_needs_nothing_and_shows_everything(folders, capsys):
    study, _, run = folders
    assert main(["study", "report", str(study.path), str(run)]) == 0
    assert "report.html" in capsys.readouterr().out
    text = (study.path / "report.html").read_text()
    tags = Tags(text).found
    for tag, attributes in tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href"):
            assert re.match("data:|#", attributes.get(name) or "#"), (tag, attributes)
    pictures = [attributes for tag, attributes in tags if attributes.get("role") == "img"]
    assert len(pictures) == 4  # histogram, by epoch, trust, findings
    assert all(len(one["aria-label"]) > 20 for one in pictures)
    assert sum(tag == "svg" for tag, _ in tags) == 4
    (levels,) = [attributes["data-label"] for tag, attributes in tags if attributes.get("class") == "levels"]
    assert levels == "level of robust memorisation"
    assert sum(tag == "img" for tag, _ in tags) == 36 + samples_of_levels(study)
    assert "None is shown: with more models there may be some" in text
    assert "curvature, which bat-fast study dynamics measures" in text
    assert "bat-fast study attributions NATURAL ROBUST" in text
    assert not [tag for tag, _ in tags if tag == "b" or attributes.get("onclick")]
    island = json.loads(re.search(r'id="results">(.*?)</script>', text, re.DOTALL)[1])
    assert island["k"] == 2
    assert len(island["ablation"]) == len(list(effects(study, read_groups(study, "robust")))) > 0
    assert len(text) < 500_000


def test_bad_words_are_one_line(folders, tmp_path, capsys):
    study, _, run = folders
    for words, text in (
        (["report", str(tmp_path)], "no folder of a study"),
        (["report", str(study.path), str(tmp_path)], "no record"),
        (["report", str(study.path), "--out", str(tmp_path)], "is a folder"),
        (["ablation", str(run)], "no folder of a study"),
        (["dynamics", "--judge_every", "0"], "--judge_every"),
        (["random-labels", "--recipe", "digits-pgd-at", "--out", "x"], "--out means nothing here"),
        (["memorisation", "--recipe", "digits-pgd-at", "--seeds", "0"], "--seeds means nothing"),
    ):
        assert main(["study", *words]) == 2
        error = capsys.readouterr().err
        assert text in error
        assert error.count("\n") == 1


def test_an_ablation_trains_what_is_missing(folders, tmp_path):
    config = folders[1]
    study = StudyFolder(shutil.copytree(folders[0].path, tmp_path / "study"))
    shutil.rmtree(study.path / "ablation")
    told = []
    ablate(study, config, read_groups(study, "robust"), None, [0], "cpu", lambda *count: told.append(count))
    assert told[-1] == (5, 5)
    files = sorted(file.stem for file in (study.path / "ablation").iterdir())
    assert files == ["all-robust-0", "atypical-robust-0", "typical-robust-0"]  # no q: nobody is harmful
    groups = read_groups(study, "robust")
    others = groups._replace(train=np.roll(groups.train, 1))
    with pytest.raises(ValueError, match="more models"):
        ablate(study, config, others, None, [0], "cpu")
    q = np.linspace(0, 1, len(groups.train))
    keep = np.ones(len(groups.train), bool)
    for condition in CONDITIONS[3:]:
        keep[:] = True
        keep[left_out(groups, q, condition, 0)] = False
        bits = {"left_out": np.packbits(~keep), "atypical": np.packbits(groups.train)}
        write_arrays(study.path / "ablation" / f"{condition}-robust-0.npz", bits)
    ablate(study, config, groups, q, [0], "cpu")  # nothing is missing
    with pytest.raises(ValueError, match=r"harmful-robust-0.npz was made with another RUN"):
        ablate(study, config, groups, 1 - q, [0], "cpu")


def test_a_dry_run_of_a_study_trains_nothing(tmp_path, capsys):
    words = ["--recipe", "digits-pgd-at", "--dry-run", "--device", "cpu"]
    for name in ("memorisation", "dynamics", "random-labels"):
        out = [] if name == "random-labels" else ["--out", str(tmp_path / name)]
        assert main(["study", name, *words, *out]) == 0
        assert "ok: digits" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_study_that_is_told_to_end_says_so_to_a_scheduler(tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt(signal.SIGTERM)

    monkeypatch.setattr(Trainer, "fit", interrupted)
    words = ["--recipe", "digits-pgd-at", "--device", "cpu", "--out", str(tmp_path / "run")]
    assert main(["study", "dynamics", *words, "--judge_every", "5"]) == 75
    assert "--judge_every 5 --curvature 10" in capsys.readouterr().err
    goes_on = ["study", "dynamics", "--resume", "--out", str(tmp_path / "run")]
    assert main([*goes_on, "--curvature", "3"]) == 2
    assert "--curvature was 10 and is now 3" in capsys.readouterr().err
    assert main(goes_on) == 75  # the pace is that of the run
    assert "--judge_every 5 --curvature 10" in capsys.readouterr().err
