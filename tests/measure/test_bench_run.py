"""`bat-fast bench --run`: the trained model of a run, on its test images."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from bat_fast.batch import Batch
from bat_fast.cli import main
from bat_fast.evaluate.saved import evaluate_saved
from bat_fast.measure.strength import Strength, strength
from bat_fast.measure.workload import RandomWorkload
from bat_fast.report.speed_table import print_speed
from bat_fast.runs.sealed_tensors import sealed_tensors
from bat_fast.train import Trainer

FAST = ["--seconds", "0", "--attack.steps", "3", "--batch_size", "128"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, small):
    folder = tmp_path_factory.mktemp("runs") / "short"
    Trainer(small(epochs=2, batch_size=64), folder).fit()
    return folder


@pytest.fixture
def bench(capsys):
    def call(*words):
        capsys.readouterr()
        assert main(["bench", *map(str, words), *FAST, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return call


@pytest.mark.slow
def test_the_strength_is_that_of_the_trained_model_on_its_test_images(run, bench):
    found = bench("--run", run)
    trained = evaluate_saved(run, steps=3, device="cpu")
    assert found["judged_images"] == trained["n_examples"] == 359
    assert found["images"] == [128, 1, 8, 8]
    assert found["clean_acc"] == pytest.approx(trained["metrics"]["test/clean_acc"])
    assert found["plain_robust_acc"] == pytest.approx(trained["metrics"]["test/pgd3_acc"])
    rows = {row["name"]: row for row in found["rows"]}
    gain = found["plain_loss"] - found["clean_loss"]
    assert gain > 0
    for row in rows.values():
        assert row["loss_change"] == pytest.approx(row["loss"] - rows["eager fp32"]["loss"])
        assert row["gain_change"] == pytest.approx(row["loss_change"] / gain)
        assert row["robust_change"] == pytest.approx(row["robust_acc"] - rows["eager fp32"]["robust_acc"])
        assert abs(row["gain_change"]) < 0.05
        assert row["attack_gaps"] is None
        assert row["step_gaps"] is None
    assert rows["eager fp32"]["loss_change"] == 0
    assert rows["eager bf16"]["loss_change"] != 0
    assert abs(rows["frozen fp32"]["gain_change"]) < 0.005
    assert found["other_start"]["loss_change"] != 0


@pytest.mark.slow
def test_eager_fp32_is_the_measure_even_where_it_is_not_timed(run, bench):
    both, alone = bench("--run", run), bench("--run", run, "--engines", "frozen", "--precisions", "bf16")
    assert [row["name"] for row in alone["rows"]] == ["frozen bf16"]
    assert alone["plain_loss"] == pytest.approx(both["plain_loss"])
    (row,) = (row for row in both["rows"] if row["name"] == "frozen bf16")
    assert alone["rows"][0]["robust_change"] == pytest.approx(row["robust_change"])


@pytest.mark.slow
def test_images_limit_what_is_judged_in_whole_batches(run, bench):
    one = ("--engines", "eager", "--precisions", "fp32")
    assert bench("--run", run, "--images", 1, *one)["judged_images"] == 128
    assert bench("--run", run, "--images", 129, *one)["judged_images"] == 256


@pytest.mark.slow
def test_a_method_that_remembers_samples_can_be_replayed(tmp_path, small, bench):
    Trainer(small(epochs=1, method={"name": "te", "start": 0}), tmp_path / "te").fit()
    (row,) = bench("--run", tmp_path / "te", "--engines", "eager", "--precisions", "fp32")["rows"]
    assert row["step_ms"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "digits-bat"], "--recipe does not go with --run"),
        (["--config=x.yaml"], "--config does not go with --run"),
        (["--resume"], "--resume does not go with --run"),
        (["--model.name", "preactresnet18"], "--model.name does not go with --run"),
        (["--data.name", "cifar10"], "--data.name does not go with --run"),
        (["--data.options", '{"val": 100}'], "--data.options.val does not go with --run"),
        (["--seed", "7"], "--seed does not go with --run"),
        (["--images", "0"], "--images must be at least 1"),
        (["--attack.warp", "eager"], "attack.warp"),
    ],
)
def test_what_does_not_fit_a_run_is_refused(run, words, message, capsys):
    assert main(["bench", "--run", str(run), *words]) == 2
    assert message in capsys.readouterr().err


def test_images_need_a_run(capsys):
    assert main(["bench", "--recipe", "digits-bat", "--images", "5"]) == 2
    assert "--images goes with --run" in capsys.readouterr().err


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert main(["bench", "--run", str(tmp_path / "nowhere")]) == 2
    assert "no run folder" in capsys.readouterr().err


def test_a_run_that_has_not_finished_is_refused(run, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    assert main(["bench", "--run", str(tmp_path)]) == 2
    assert f"has not finished: bat-fast train --resume --out {tmp_path}" in capsys.readouterr().err


def test_data_that_are_not_there_are_named(run, tmp_path, capsys):
    gone = {"name": "image_folder", "root": str(tmp_path / "gone")}
    with safe_open(run / "model.safetensors", framework="pt") as file:
        metadata = file.metadata() | {"data": json.dumps(gone)}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    (tmp_path / "model.safetensors").write_bytes(sealed_tensors(save(tensors, metadata)))
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    assert main(["bench", "--run", str(tmp_path)]) == 2
    assert str(tmp_path / "gone") in capsys.readouterr().err


def test_a_step_takes_samples_of_any_id(small):
    workload = RandomWorkload(small(method={"name": "te", "start": 0}))
    batch = workload.batch(8)
    workload.step(workload.config, workload.model(), batch._replace(index=batch.index + 1000))()


def test_batches_of_unequal_size_count_by_their_images():
    x, y, index = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 3]), torch.arange(5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    parts = [Batch(x[:4], y[:4], index[:4]), Batch(x[4:], y[4:], index[4:])]
    with torch.no_grad():
        logits = model(2 * x)
    loss, accuracy = strength(model, parts, lambda batch: 2 * batch.x)
    assert loss == pytest.approx(float(nn.functional.cross_entropy(logits, y)))
    assert accuracy == pytest.approx(float((logits.argmax(1) == y).float().mean()))


def test_strength_beside_another():
    clean, plain = Strength(0.5, 0.9), Strength(2.5, 0.5)
    beside = Strength(2.4, 0.52).beside(plain, clean)
    assert beside == {
        "loss": 2.4,
        "robust_acc": 0.52,
        "loss_change": pytest.approx(-0.1),
        "gain_change": pytest.approx(-0.05),
        "robust_change": pytest.approx(0.02),
    }
    assert plain.beside(plain, plain)["gain_change"] is None


def test_the_table_shows_differences_and_gaps(capsys):
    plain, clean = Strength(2.5, 0.5), Strength(0.5, 0.9)
    row = {
        "attack_ms": 1.0, "attack_img_s": 8.0, "step_ms": 2.0, "step_img_s": 4.0, "epoch_s": 3.0,
        "utilisation": 0.5, "memory_mib": 9.0,
    }  # fmt: skip
    rows = [
        row
        | {"name": "graph bf16", "attack_gaps": 0.01, "step_gaps": 0.029}
        | Strength(2.4, 0.52).beside(plain, clean),
        row | {"name": "eager fp32", "attack_gaps": None, "step_gaps": None} | plain.beside(plain, clean),
    ]
    about = {
        "model": "m", "images": [8, 3, 4, 4], "attack_steps": 10, "method": "bat", "device": "cuda",
        "threads": 1, "torch": torch.__version__, "data": "digits", "clean_loss": 0.5, "clean_acc": 0.9,
        "judged_images": 77,
        "other_start": Strength(2.51, 0.499).beside(plain, clean), "rows": rows,
    }  # fmt: skip
    print_speed(about | {"run": "runs/x"})
    out = capsys.readouterr().out
    graph, eager, other = (line for line in out.splitlines() if line.startswith(("graph", "eager")))
    assert graph.split()[-8:] == ["9", "1%", "/", "3%", "2.4000", "-5.00%", "52.0%", "+2.0"]
    assert eager.split()[-5:] == ["-", "2.5000", "+0.00%", "50.0%", "+0.0"]
    assert other.split()[-4:] == ["2.5100", "+0.50%", "49.9%", "-0.1"]
    assert "runs/x and 77 of its test images" in out
    assert "NOT AS STRONG: graph bf16\n" in out
    print_speed(about | {"run": None})
    assert "random images: --run FOLDER" in capsys.readouterr().out
