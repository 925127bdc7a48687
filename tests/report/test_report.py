import json
import sys
from pathlib import Path

from bat_fast import ops
from bat_fast.report.info import collect_info, print_info
from bat_fast.report.progress import Progress, counting, epoch_line
from bat_fast.report.table import print_evaluation, print_results

ROW = {
    "epoch": 3,
    "train/loss": 0.71234,
    "train/lr": 0.1,
    "val/clean_acc": 0.95,
    "val/pgd10_acc": 0.8125,
    "perf/img_s": 12034.4,
}


class Meter:
    reads = 0

    def means(self):
        self.reads += 1
        return {"train/loss": 1.0, "train/robust_acc": 0.5}

    def images_per_second(self):
        return 1000.0


def test_epoch_line():
    line = epoch_line(ROW, 30, "val/pgd10_acc")
    assert line == "epoch  3/30  loss 0.7123  val clean 95.00%  val pgd10 81.25%  12,034 img/s"
    without = {key: value for key, value in ROW.items() if not key.startswith("val/")}
    assert epoch_line(without, 30, "val/pgd10_acc") == "epoch  3/30  loss 0.7123  12,034 img/s"


def test_what_is_counted_is_told_evenly(capsys):
    for total, wanted in ((6, [1, 2, 3, 4, 5, 6]), (12, [2, 4, 6, 8, 10, 12]), (25, [*range(3, 25, 3), 25])):
        with counting("models") as tell:
            for done in (*range(1, total + 1), total):
                tell(done, total)
        lines = capsys.readouterr().out.splitlines()
        assert lines == [f"{done} of {total} models" for done in wanted]


def test_plain_lines_where_stdout_is_no_terminal(capsys):
    meter = Meter()
    with Progress(30, 5, "val/pgd10_acc") as progress:
        progress.start_epoch(3)
        for _ in range(5):
            progress.step(meter)
        progress.end_epoch(ROW)
    assert capsys.readouterr().out == epoch_line(ROW, 30, "val/pgd10_acc") + "\n"
    assert meter.reads == 0


def test_the_bar_reads_the_metrics_at_most_twice_a_second(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    meter = Meter()
    with Progress(2, 1000, "val/pgd10_acc") as progress:
        for epoch in (1, 2):
            progress.start_epoch(epoch)
            for _ in range(1000):
                progress.step(meter)
            progress.end_epoch(ROW | {"epoch": epoch})
    out = capsys.readouterr().out
    assert "epoch 1/2  loss 0.7123" in out
    assert meter.reads <= 6  # the end of each epoch, and whatever half seconds passed


def test_tables_show_percent(capsys):
    metrics = {"val/clean_acc": 0.5, "val/pgd10_acc": 0.25, "test/clean_acc": 0.975, "test/pgd20_acc": 0.6}
    config = {"method": {"name": "bat", "alpha": 1}, "epochs": 30}
    results = {"metrics": metrics | {"perf/img_s": 1.0}, "config": config, "epoch": 7}
    print_results(results, Path("runs/a"), Path("runs/a/curves.png"))
    out = capsys.readouterr().out
    for text in ("bat alpha=1", "best epoch 7 of 30", "97.50%", "60.00%", "PGD-20", "runs/a/curves.png"):
        assert text in out
    attack = {"norm": "linf", "eps": 0.1, "step_size": 0.025, "steps": 5}
    print_evaluation(
        {
            "metrics": {"val/clean_acc": 1.0, "val/pgd5_acc": 0.5},
            "intervals": {"val/clean_acc": [0.979, 1.0], "val/pgd5_acc": [0.4277, 0.5723]},
            "n_examples": 180,
            "attack": attack,
        },
        "runs/a",
    )
    out = capsys.readouterr().out
    for text in ("100.00%", "PGD-5", "42.8% to 57.2%"):
        assert text in out


def test_info(capsys):
    info = collect_info()
    json.dumps(info)
    assert set(info["operators"]["linf_step_"]) == {"cpu", "cuda"}
    for name, answers in info["operators"].items():
        assert answers["cpu"] == ("native" if ops.is_native(name, "cpu") else "reference")
    print_info(info)
    out = capsys.readouterr().out
    assert "linf_step_" in out
    assert info["torch"] in out
