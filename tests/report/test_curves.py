import pytest

from bat_fast.config import AttackConfig, Ratio, TrainConfig
from bat_fast.report.curves import draw_curves, plot_curves
from bat_fast.report.figure import figure, svg_of
from bat_fast.report.words import run_title
from bat_fast.runs.plain import plain

ROWS = [
    {
        "epoch": epoch, "train/loss": 1.0 / epoch, "train/lr": 0.1, "train/robust_acc": 0.01 * epoch,
        "val/clean_acc": 0.95, "val/pgd10_acc": 0.8, "perf/img_s": 100.0,
    }
    for epoch in range(1, 60)
]  # fmt: skip
TEST = {"test/clean_acc": 0.9, "test/pgd20_acc": 0.5}


@pytest.mark.parametrize("count", [1, 59])
def test_a_picture_of_any_number_of_epochs(count, tmp_path):
    rows = ROWS[:count]
    if count > 1:  # an epoch without validation
        rows[3] = {key: value for key, value in rows[3].items() if not key.startswith("val/")}
    draw_curves(rows, 1, tmp_path / "c.png", title="$\\frac{$ [bold]", test=TEST)
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_train_and_test_are_in_the_picture_and_the_legend_is_beside_it():
    with figure(12, 4) as made:
        plot_curves(made, ROWS, 20, TEST)
        made.canvas.draw()
        accuracy = made.axes[1]
        lines = {line.get_label(): line for line in accuracy.lines}
        assert list(lines["train robust (training attack)"].get_ydata()) == [
            pytest.approx(0.01 * epoch) for epoch in range(1, 60)
        ]
        for label, value in (("test clean 90.0%", 0.9), ("test PGD-20 50.0%", 0.5)):
            assert (list(lines[label].get_xdata()), list(lines[label].get_ydata())) == ([20], [value])
        legend = accuracy.get_legend().get_window_extent()
        assert legend.x0 >= accuracy.get_window_extent().x1
        assert legend.x1 <= made.axes[2].get_window_extent().x0


def test_the_title_says_which_run_it_is(tmp_path):
    config = TrainConfig(seed=7, method={"name": "bat", "alpha": 2}, attack=AttackConfig(eps=Ratio("8/255")))
    assert run_title(plain(config), tmp_path / "my-run").startswith("my-run ")
    title = run_title(plain(config), tmp_path / "my-run" / "seed-7")
    for text in ("my-run/seed-7", "bat alpha=2", "digits", "linf eps 8/255", "seed 7"):
        assert text in title


def test_an_svg_is_the_same_each_time_and_follows_the_theme():
    def draw():
        with figure(6, 3, page=True) as made:
            plot_curves(made, ROWS, 20, TEST)
            return svg_of(made, "curves")

    text = draw()
    assert text == draw()
    assert text.startswith("<svg")
    assert "var(--ink)" in text
    assert "#000000" not in text.replace("fill: #000000; fill-opacity", "")
