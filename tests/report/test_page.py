import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
import yaml
from folders import write_run
from models import examined

from bat_fast.report import page as page_module
from bat_fast.report import pictures
from bat_fast.report.compare import differing, group_runs
from bat_fast.report.judged import with_evaluations
from bat_fast.report.page import render, write_page
from bat_fast.report.run import read_run
from bat_fast.report.verdict import verdict
from bat_fast.runs.results import settings_of

HOSTILE = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</script><b>", "' onload='alert(1)",
    "$\\frac{", "{{ 7 * 7 }}", "<!--", "]]>", "&lt;i&gt;", "\u202e\u2028 \ud800",
]  # fmt: skip


class Page(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.scripts, self._open = [], "", [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open = tag
            self.scripts += [""] if tag == "script" else []

    def handle_endtag(self, tag):
        self._open = None if tag == self._open else self._open

    def handle_data(self, data):
        if self._open == "script":
            self.scripts[-1] += data
        elif self._open is None:
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def run(tmp_path):
    return read_run(write_run(tmp_path / "first", clean=0.9), "A")._replace(examined=examined())


@pytest.fixture
def hostile(tmp_path):
    path = write_run(
        tmp_path / "<b onclick='x'>&\"$\\frac{", method={"name": HOSTILE[0], HOSTILE[1]: HOSTILE[2]}
    )
    results = json.loads((path / "results.json").read_text())
    results["versions"]["device"], results["git"] = HOSTILE[2], HOSTILE[1]
    (path / "results.json").write_text(json.dumps(results))
    return read_run(path, "A")._replace(examined=examined(names=HOSTILE))


@pytest.mark.slow
def test_nothing_of_a_run_folder_becomes_a_part_of_the_page(run, hostile):
    plain, page = Page(render([run])), Page(render([hostile], command=HOSTILE[0]))
    kinds = [sorted({tag for tag, _ in one.elements}) for one in (plain, page)]
    assert kinds[0] == kinds[1]
    for tag in ("script", "img", "b", "i"):
        assert len(page.all(tag)) == len(plain.all(tag)), tag
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
    for name in HOSTILE:
        assert name in page.text
    assert "49" not in [part.strip() for part in page.text.split("\n")]
    (found,) = json.loads(page.scripts[0])
    assert found["results"]["config"]["method"]["name"] == HOSTILE[0]
    assert found["path"] == str(hostile.path)


def test_a_title_that_leaves_unicode_is_written(hostile, tmp_path):
    assert write_page([hostile], tmp_path / "new" / "r.html") == (tmp_path / "new" / "r.html").stat().st_size


def test_the_page_needs_nothing_and_allows_nothing_but_its_own_script(run):
    text = render([run])
    page = Page(text)
    (policy,) = [one["content"] for one in page.all("meta") if "http-equiv" in one]
    script = page.scripts[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert f"script-src 'sha256-{digest}'" in policy
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            assert re.match("data:|#", attributes.get(name) or "#"), (tag, attributes)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert len(script.encode()) < 10_000
    assert len(text.encode()) < 800_000


def test_every_picture_is_told_in_words(run):
    page = Page(render([run]))
    images = page.all("img")
    assert len(images) == 3
    assert all(image["alt"].startswith("An image of ") for image in images)
    told = [one["aria-label"] for one in page.all("div") if one.get("role") == "img"]
    assert len(told) == len(page.all("svg")) == 5  # radius, steps, weights of BAT, curves, confidence
    assert all(len(text) > 20 for text in told)


def test_the_numbers_of_the_page_are_those_of_the_run(run):
    page = Page(render([run]))
    (found,) = json.loads(page.scripts[0])
    assert found["results"] == json.loads((run.path / "results.json").read_text())
    assert found["examined"]["radii"] == [[0.0, 0.9], [0.05, 0.7], [0.1, 0.5], [0.2, 0.25], [0.5, 0.0]]
    for text in (
        "50.0% of 400 test images",
        "All 3 checks of the attack pass.",
        "90.0 %",
        "86.7 % to 92.6 %",
    ):
        assert text in page.text


def said(runs):
    """The verdict on some runs."""
    differ = differing([settings_of(run.config) for run in runs])
    return verdict(runs, group_runs([run.path for run in runs]), {run.letter: [] for run in runs}, differ)


def test_the_verdict_on_several_runs(tmp_path):
    def written(letter, **changes):
        return read_run(write_run(tmp_path / letter, **changes), letter)

    first, better = written("A", robust=0.5), written("B", robust=0.6, attack={"steps": 7})
    assert said([first, better]) == ["B is the most robust: 60.0%, then A with 50.0%."]
    near = written("C", robust=0.51, attack={"steps": 7})
    assert "these two 400 images cannot decide" in said([first, near])[0]
    other = written("D", attack={"eps": "4/255"})
    assert "do not compare: the runs were tested differently (attack.eps)" in said([first, other])[0]
    again = written("E", robust=0.51, seed=1)
    assert said([first, again, better]) == [
        "A, E: 50.50 % ± 6.35 % under PGD-20, over 2 seeds.", "B: 60.00 % under PGD-20, over 1 seed.",
    ]  # fmt: skip


def test_runs_side_by_side(run, tmp_path):
    path = write_run(tmp_path / "second", attack={"steps": 7}, seed=3)
    text = Page(render([run, read_run(path, "B")])).text
    for part in ("Settings that differ", "attack.steps", "Pictures of all runs", "Not examined"):
        assert part in text


def test_a_run_that_has_not_finished(tmp_path):
    path = write_run(tmp_path / "begun")
    for name in ("results.json", "classes.txt"):
        (path / name).unlink()
    text = Page(render([read_run(path, "A")._replace(unmeasured="the run has not finished")])).text
    assert "A has not finished: 3 of 3 epochs." in text
    (path / "metrics.jsonl").unlink()
    assert "0 of 3 epochs" in Page(render([read_run(path, "A")])).text


def test_many_classes_are_listed_by_pairs(run):
    names = [f"class {number}" for number in range(30)]
    text = Page(render([run._replace(examined=examined(30, 300, names))])).text
    assert "Most confused under attack" in text
    assert "rows are true classes" not in text


def test_outputs_without_a_class_and_nan_are_shown(run):
    found = examined(outputs=12)
    found.attacked[35] = torch.nan
    text = Page(render([run._replace(examined=found)])).text
    assert "output 11" in text
    assert "Do not rely on the robust accuracy of A. Failed checks: nan under attack" in text


def test_a_run_of_before_a_setting_is_read(tmp_path):
    path = write_run(tmp_path / "old")
    config = yaml.safe_load((path / "config.yaml").read_text())
    del config["eval"]["choose"]
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    assert read_run(path, "A").measured == "validation"


def test_a_panel_without_a_metric_is_not_seen(run, monkeypatch):
    monkeypatch.setattr(pictures, "svg_of", lambda made, _: sum(axes.get_visible() for axes in made.axes))
    rows = [row | {f"train/own_{number}": 0.5 for number in range(6)} for row in run.rows]
    own = {name for row in rows for name in row if name.startswith("train/")} - {*pictures._OF_EVERY_METHOD}
    assert 4 < len(own) < 8  # two lines of four panels
    assert pictures.own_metrics([run._replace(rows=rows)]) == len(own)


def test_damaged_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run folder"):
        read_run(tmp_path, "A")
    path = write_run(tmp_path / "bad")
    (path / "metrics.jsonl").write_text("{\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl: line 1 is not that of epoch 1"):
        read_run(path, "A")


def test_the_parts_of_the_page_are_in_the_package():
    for name in ("page.html", "style.css", "page.js"):
        assert page_module._part(name)


CHROMIUM = shutil.which("chromium")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 400])
def test_in_a_browser(width, run, hostile, tmp_path):
    """No message on the console, nothing fetched or refused, and no wider than the window."""
    probe = tmp_path / "probe.html"
    write_page([run, hostile._replace(letter="B")], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    # The page's own policy refuses other scripts, so a page around it measures it.
    probe.write_text(
        f"<iframe id=f width={width} height=900 src=report.html></iframe><script>onload = () => {{"
        "const d = f.contentDocument, r = d.documentElement;"
        "const button = d.querySelector('table.sort th:nth-child(3) button');"
        "button.click(); button.click();"
        "document.title = [r.scrollWidth <= r.clientWidth, d.querySelectorAll('svg').length,"
        "[...d.images].every((one) => one.naturalWidth > 0), button.parentNode.ariaSort,"
        "d.defaultView.performance.getEntriesByType('resource').length].join()}</script>"
    )
    words = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
    ]  # fmt: skip
    done = subprocess.run([*words, probe.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    title = re.search("<title>(.*?)</title>", done.stdout)
    assert title, done.stdout[:500]
    assert title[1] == f"true,{text.count('<svg')},true,descending,0"


def test_what_every_epoch_measured_has_its_name(tmp_path):
    """Where epochs are chosen on the test split there is no validation."""
    for choose, word, other in (
        ("val", "validation", "robust test accuracy"),
        ("test", "test", "validation"),
    ):
        run = read_run(write_run(tmp_path / choose, eval={"choose": choose}), "A")
        run.rows[0]["val/pgd10_acc"] = 0.9
        text = render([run])
        assert f"robust {word} accuracy from 90% to 50%" in text
        assert f"overfits robustly: {word} accuracy fell by 40.0 points" in text
        assert other not in text


def evaluation(model, **changes):
    """What ``bat-fast eval --eps 0.05 0.1 --out`` writes, in short."""
    found = [{"test/clean_acc": 0.9, "test/aa_acc": acc} for acc in (0.7, 0.45)]
    bands = [{name: [value - 0.05, value + 0.05] for name, value in one.items()} for one in found]
    curve = [
        {"eps": eps, "written": str(eps), "metrics": one, "intervals": band}
        for eps, one, band in zip((0.05, 0.1), found, bands, strict=True)
    ]
    attack = {"norm": "linf", "eps": 0.1}
    broken = {"clean": 40, "apgd-ce": 150, "square": 30}
    whole = {
        "model": str(model),
        "metrics": found[1],
        "intervals": bands[1],
        "n_examples": 400,
        "split": "test",
    }
    return whole | {"attack": attack, "curve": curve, "broken_by": broken} | changes


@pytest.mark.slow
def test_evaluations_and_recorded_samples_are_drawn(run, tmp_path):
    file = tmp_path / "aa.json"
    file.write_text(json.dumps(evaluation(run.path / "model.safetensors")))
    (shown,) = with_evaluations([run], [file])
    margin = np.linspace(-1, 1, 3 * 50).reshape(3, 50)
    margin[1, 3] = np.nan
    whole = shown._replace(samples={"margin": margin, "q": np.abs(margin)})
    page, plain = Page(text := render([whole])), Page(render([run]))
    assert len(text.encode()) < 800_000
    told = [one["aria-label"] for one in page.all("div") if one.get("role") == "img"]
    assert len(told) == len(page.all("svg")) == len(plain.all("svg")) + 3
    assert any("360 after clean, 210 after APGD-CE, 180 after Square, of 400" in text for text in told)
    assert any("AutoAttack: 70% at 0.05, 45% at 0.1" in text for text in told)
    assert any(
        "median margin -0.67 in the first and 0.67 in the last; below 0 are 100% and 0%" in t for t in told
    )
    # Names of a file that anybody may have written are no elements either.
    hostile = evaluation(run.path, broken_by=dict.fromkeys(HOSTILE, 1))
    hostile["metrics"] |= {f"test/{name}_acc": 0.5 for name in HOSTILE}
    for row in hostile["curve"]:
        for name in HOSTILE:
            row["metrics"][f"test/{name}_acc"], row["intervals"][f"test/{name}_acc"] = 0.5, [0.4, 0.6]
    ugly = Page(render([run._replace(evaluations=(hostile,))]))
    for tag in ("script", "img", "b", "i"):
        assert len(ugly.all(tag)) == len(plain.all(tag)), tag


def test_evaluations_of_other_models_are_refused(run, tmp_path):
    file = tmp_path / "aa.json"
    for content, words in (
        ("{", "was not written by bat-fast eval --out"),
        (json.dumps([1]), "was not written by bat-fast eval --out"),
        (json.dumps(evaluation(run.path, split="(")), "was not written by bat-fast eval --out"),
        (json.dumps(evaluation(tmp_path / "another")), "another, which is none of the runs"),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=words):
            with_evaluations([run], [file])
