"""`bat-fast bench`: every variant runs, reaches the same loss, and is measured."""

import json

import pytest
import torch

from bat_fast import models
from bat_fast.cli import main
from bat_fast.measure.peers import peers
from bat_fast.report.speed_table import weaker

TINY = ["bench", "--recipe", "digits-bat", "--batch_size", "16", "--attack.steps", "3", "--device", "cpu"]


@pytest.mark.slow
def test_bench_measures_every_engine_and_style(capsys):
    assert main([*TINY, "--seconds", "0", "--peers", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in found["rows"]}
    ours = {"eager fp32", "eager bf16", "frozen fp32", "frozen bf16"}
    assert ours | {"backward style", "input style"} <= rows.keys()
    assert found["forward_gflop"] > 0
    for name, row in rows.items():
        assert row["attack_ms"] > 0
        assert (row["step_ms"] is not None) == (name in ours)
        assert row["loss"] > found["clean_loss"]
    assert rows["frozen fp32"]["loss"] == pytest.approx(rows["eager fp32"]["loss"], rel=1e-4)
    assert rows["eager fp32"]["epoch_s"] == pytest.approx(1258 / rows["eager fp32"]["step_img_s"])


@pytest.mark.slow
def test_bench_prints_a_table(capsys):
    assert main([*TINY, "--seconds", "0", "--engines", "frozen", "--precisions", "fp32"]) == 0
    out = capsys.readouterr().out
    assert "frozen fp32" in out
    assert "attack ms" in out


def test_wrong_engine_is_bad_input(capsys):
    assert main([*TINY, "--engines", "warp"]) == 2
    assert "engine must be one of" in capsys.readouterr().err


def test_a_weaker_attack_is_marked():
    rows = [
        {"name": name, "gain_change": change}
        for name, change in zip("abcd", (0, -0.005, -0.1, None), strict=True)
    ]
    assert weaker({"rows": rows}) == ["c"]


def test_peers_stay_inside_the_ball():
    model = models.create("small_cnn", num_classes=4).eval()
    x, y = torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 2])
    for name, attack in peers(model, eps=0.1, step_size=0.03, steps=2).items():
        adv = attack(x, y)
        assert (adv - x).abs().max() <= 0.1 + 1e-6, name
        assert adv.min() >= 0, name
        assert adv.max() <= 1, name
