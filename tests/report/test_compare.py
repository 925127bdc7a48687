import json
import math

import pytest
from folders import write_run

from bat_fast.cli import main
from bat_fast.report.compare import cell, comparison, differences, group_runs, letters
from bat_fast.report.intervals import Mean, mean_of, t_quantile, wilson


@pytest.fixture
def runs(tmp_path):
    """Three seeds of one configuration, and one of another."""
    same = [
        write_run(tmp_path / f"s{seed}", seed=seed, robust=robust, attack={"eps": eps})
        for seed, robust, eps in ((0, 0.5, "1/10"), (1, 0.6, 0.1), (2, 0.7, "1/10"))
    ]
    return [*same, write_run(tmp_path / "other", method={"name": "trades", "beta": 6.0}, name="pgd10")]


@pytest.mark.parametrize("freedom", [1, 2, 5, 19, 20, 21, 30, 100, 10_000])
def test_quantiles_are_those_of_scipy(freedom):
    stats = pytest.importorskip("scipy.stats")
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=1e-4)


@pytest.mark.parametrize(("right", "n"), [(0, 10), (7, 10), (359, 359), (200, 1000)])
def test_wilson_is_that_of_scipy(right, n):
    stats = pytest.importorskip("scipy.stats")
    interval = stats.binomtest(right, n).proportion_ci(0.95, "wilson")
    assert wilson(right / n, n) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_interval_of_the_mean():
    mean = mean_of([0.5, 0.6, 0.7])
    assert mean == pytest.approx((0.6, 4.3027 * 0.1 / math.sqrt(3), 3))
    assert mean_of([0.5]) == Mean(0.5, None, 1)


def test_seeds_are_one_group_and_a_fraction_is_its_number(runs):
    first, second = groups = group_runs(runs)
    assert (first.paths, second.paths) == (runs[:3], runs[3:])
    assert first.mean("test/pgd20_acc") == mean_of([0.5, 0.6, 0.7])
    assert first.mean("test/pgd10_acc") is None  # of the other one alone
    assert differences(groups) == {
        "method.name": ["bat", "trades"],
        "method.beta": [None, 6.0],
        "attack.eps": ["1/10", "8/255"],
    }


def test_where_a_run_was_computed_is_no_difference(tmp_path):
    paths = [write_run(tmp_path / "a"), write_run(tmp_path / "b", seed=1, data={"root": "/elsewhere"})]
    assert len(group_runs(paths)) == 1


def test_the_same_seed_again_is_no_second_seed(tmp_path):
    groups = group_runs(
        [write_run(tmp_path / "a"), write_run(tmp_path / "b"), write_run(tmp_path / "c", seed=1)]
    )
    assert [[path.name for path in group.paths] for group in groups] == [["a", "c"], ["b"]]


def test_json_has_fractions_and_the_table_percent(runs, capsys):
    assert main(["compare", *map(str, runs), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(json.dumps(comparison(group_runs(runs))))
    assert found["groups"][0]["metrics"]["test/pgd20_acc"]["n"] == 3
    assert found["differ"]["method.name"] == {"A": "bat", "B": "trades"}
    assert [one["seed"] for one in found["groups"][0]["runs"]] == [0, 1, 2]
    assert main(["compare", *map(str, runs)]) == 0
    out = capsys.readouterr().out
    for text in (
        "60.00 ± 24.84",
        "test PGD-20 %",
        "training s",
        "method.name",
        "seeds 0, 1, 2",
        str(runs[3]),
    ):
        assert text in out


def test_one_run_each_says_that_chance_is_unknown(runs, capsys):
    assert main(["compare", str(runs[0]), str(runs[3])]) == 0
    assert "--seeds" in capsys.readouterr().out


def test_names_that_look_like_markup_are_printed_as_they_are(tmp_path, capsys):
    options = {"name": "[bold]trades[/bold]"}
    paths = [write_run(tmp_path / "[red]a"), write_run(tmp_path / "b", method=options)]
    assert main(["compare", *map(str, paths)]) == 0
    out = capsys.readouterr().out
    assert "[bold]trades[/bold]" in out
    assert "[red]a" in out


def test_bad_input_is_one_line(runs, tmp_path, capsys):
    begun = write_run(tmp_path / "begun")
    (begun / "results.json").unlink()
    broken, foreign = write_run(tmp_path / "broken"), write_run(tmp_path / "foreign")
    (broken / "results.json").write_text("{")
    (foreign / "results.json").write_text("[1]")
    for path, text in (
        (begun, "--resume --out"), (tmp_path / "nowhere", "no run folder"), (broken, "no JSON"),
        (foreign, "not written by bat_fast"), (runs[0] / ".." / "s0", "named twice"),
    ):  # fmt: skip
        assert main(["compare", str(runs[0]), str(path)]) == 2
        error = capsys.readouterr().err
        assert text in error
        assert error.count("\n") == 1


def test_cells_and_letters():
    assert cell("test/clean_acc", Mean(0.5, None, 1)) == "50.00"
    assert cell("epoch", Mean(7.0, None, 1)) == "7"
    assert cell("perf/train_s", Mean(61.25, 2.0, 3)) == "61.2 ± 2.0"
    assert cell("test/clean_acc", None) == "-"
    assert [letters(number) for number in (0, 25, 26, 701, 702)] == ["A", "Z", "AA", "ZZ", "AAA"]
